"""JSON as it is kept with an event: text that any parser reads back."""

import json

strict_json = json.JSONEncoder(allow_nan=False).encode
"""A value as JSON in ASCII; halves of surrogate pairs are escaped.

Raises ValueError or TypeError where it has something that JSON has not, such as NaN or an object.
"""
