"""A pairwise selection of a matrix: few items in which all pairs are."""

import itertools
from dataclasses import replace

from harness.plugin.selection import find_pairwise
from harness.record.item import Target, Where
from tests.fakes.samples import item, stack, variant

KERNELS = ("debian_6.1", "debian_6.12", "debian_7.3")


def matrix(cases: int, variants: int) -> list[Where]:
    """The items of some cases, each with so many variants, on three kernels."""
    where = item().where
    return [
        replace(where, name=f"case_{case}", variant=replace(variant(), parameters=(("n", str(number)),)), target=Target(kernel, kernel))
        for case, number, kernel in itertools.product(range(cases), range(variants), KERNELS)
    ]


def test_each_variant_and_each_case_on_each_kernel_is_in_a_pairwise_selection_and_little_else() -> None:
    for variants in (1, 2, 3, 7):
        items = matrix(5, variants)
        chosen = [items[number] for number in find_pairwise(items)]
        assert {(one.path, one.variant_id) for one in chosen} == {(one.path, one.variant_id) for one in items}
        assert {(one.path, one.target.column) for one in chosen} == {(one.path, one.target.column) for one in items}
        assert len(chosen) == 5 * max(variants, len(KERNELS))


def test_each_stack_is_run_on_each_kernel_also_where_variants_and_kernels_are_as_many() -> None:
    storages = ("dax", "no_dax", "node")
    items = [
        replace(one, variant=variant(storage), stack=stack(storage))
        for one, storage in zip(matrix(1, 3), itertools.chain.from_iterable([storage] * 3 for storage in storages), strict=True)
    ]
    assert len(find_pairwise(items)) == 9


def test_a_variant_that_is_not_there_with_each_kernel_is_not_lost() -> None:
    items = [one for one in matrix(1, 3) if (one.target.column == KERNELS[2]) == one.variant_id.endswith("n_0")]
    chosen = [items[number] for number in find_pairwise(items)]
    assert {one.variant_id for one in chosen} == {one.variant_id for one in items}
    assert {one.target.column for one in chosen} == set(KERNELS)


def test_nothing_to_choose_from_is_nothing() -> None:
    assert find_pairwise([]) == set()
