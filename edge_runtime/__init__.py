"""The portable core: protocol codec, engine and backends; runs on a Pi without Ray or torch."""
