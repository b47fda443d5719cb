"""What a run says: rows, paragraphs, tables."""
