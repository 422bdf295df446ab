"""Money: the settings, the price book as a file, and what gateways have spent."""
