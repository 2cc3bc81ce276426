"""Pure renderers: a Report becomes text, JSON or JUnit XML. None of them runs anything."""
