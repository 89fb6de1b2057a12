"""Where the API lies."""

API = "/api/v1"
