"""Where the API lies."""

API = "/api/v1"
TOKEN = f"{API}/auth/token"
