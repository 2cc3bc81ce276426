"""Pure renderers: a Report becomes text, JSON, JUnit XML, Markdown, or a page of HTML. None of them runs anything."""
