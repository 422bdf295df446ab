"""Small models with known properties: data (`digits`), networks, export, publication."""
