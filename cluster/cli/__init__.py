"""The `prime-spark` command. Heavy imports happen inside the commands that need them."""
