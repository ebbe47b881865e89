"""The real flow on a real broker and real tables, from the outside."""
