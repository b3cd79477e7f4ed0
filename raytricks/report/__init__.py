"""What the user sees: the header, the progress and the summary. Text in, text out; trains nothing."""
