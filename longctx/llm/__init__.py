"""One client for every call of a language model: cached, retried, limited, counted."""
