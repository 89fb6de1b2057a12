"""What administrators see, as the API explorer shows it."""

from iotflow.http.examples import answers, asks, example

INVITATION = asks(
    week=example("For as long as the operator has set, a week if nothing else", {}),
    day=example("For a day", {"expires_in": 86_400}),
)
STATUS = asks(
    maintenance=example("Into maintenance", {"status": "maintenance"}),
    off=example("Off: its submissions get 403", {"status": "inactive"}),
    on=example("On again", {"status": "active"}),
)

INVITED = answers(
    201,
    {
        "id": 2,
        "invitation": "ioti_3q2-7wABcdefGhIjKlMnOpQrStUvWxYz0123456789A",
        "created_at": "2026-01-31T14:00:00.000Z",
        "expires_at": "2026-02-07T14:00:00.000Z",
    },
)
STATS = answers(
    200,
    {
        "users": {"total": 12, "active": 11, "admins": 1},
        "devices": {"total": 340, "active": 331, "inactive": 7, "maintenance": 2},
        "groups": 8,
        "uptime_s": 86_400,
    },
)
