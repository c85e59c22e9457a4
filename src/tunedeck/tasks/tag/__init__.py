"""Token classification: entities and slots."""
