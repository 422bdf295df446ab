"""No errors: nothing fails here."""
