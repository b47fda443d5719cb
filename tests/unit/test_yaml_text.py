"""What the quick reader of YAML makes of every data file is what PyYAML's own makes of it."""

from pathlib import Path

import pytest
import yaml

from harness.yaml_text import compose

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "cases").rglob("*.yaml"), *(ROOT / "images").glob("*.yaml")])


def shown(node: yaml.Node | None) -> object:
    """A node with all that we read of it."""
    if node is None:
        return None
    line = node.start_mark.line
    if isinstance(node, yaml.ScalarNode):
        return line, node.style or None, node.value
    if isinstance(node, yaml.SequenceNode):
        return line, [shown(item) for item in node.value]
    return line, [(shown(key), shown(value)) for key, value in node.value]


def test_both_readers_see_the_same_in_every_data_file() -> None:
    assert len(FILES) > 50
    for file in FILES:
        text = file.read_text()
        assert shown(compose(text)) == shown(yaml.compose(text, Loader=yaml.SafeLoader)), file


@pytest.mark.parametrize("text", ["a: [b\n", "a: b: c\n", "{\n", 'a: "\n', "- a\nb: c\n"])
def test_what_is_no_yaml_is_refused_in_the_words_of_pyyaml(text: str) -> None:
    with pytest.raises(yaml.MarkedYAMLError) as slow:
        yaml.compose(text, Loader=yaml.SafeLoader)
    with pytest.raises(yaml.MarkedYAMLError) as quick:
        compose(text)
    assert str(quick.value) == str(slow.value)
