"""Adds to the site what is made of data: the tables of measured facts (mkdocs.yml)."""

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from harness.record.facttable import read_tables
from harness.report.factpage import fact_page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    files.append(File.generated(config, "tables.md", content=fact_page(read_tables())))
    return files
