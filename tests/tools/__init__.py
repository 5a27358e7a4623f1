"""Programs around the tests, run by hand."""
