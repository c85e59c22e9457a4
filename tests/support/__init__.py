"""What several tests start from: tiny models, data, adapters, servers."""
