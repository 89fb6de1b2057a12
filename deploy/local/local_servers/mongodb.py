"""The MongoDB stand-in: the wire protocol over an H2 file."""

import socket
import struct

from local_servers import artifacts, packages
from local_servers.errors import NotReadyError
from local_servers.home import SOURCES, Home
from local_servers.node import Node
from local_servers.processes import Launch

DATABASE = "iotflow"
_PORT = 27117
_HEAP = "256m"
_MESSAGE = 2013


class MongoNode(Node):
    """Answers like a MongoDB 5.0, as far as IoTFlow's queries go."""

    def __init__(self, home: Home) -> None:
        super().__init__(home, "mongodb", "127.0.0.1", _PORT)

    @property
    def url(self) -> str:
        return f"mongodb://{self.host}:{self.port}/{DATABASE}"

    def install(self) -> None:
        packages.install(packages.java)
        artifacts.fetch(self.home, "mongodb")

    def launch(self) -> Launch:
        data = self.home.data(self.name)
        source = self.home.config(self.name) / "StandIn.java"
        command = [
            packages.java(),
            f"-Xmx{_HEAP}",
            "-XX:+UseSerialGC",
            "-cp",
            f"{artifacts.jars(self.home, 'mongodb')}/*",
            str(source),
            self.host,
            str(self.port),
            str(data / "events.mv"),
        ]
        text = (SOURCES / "mongodb" / "StandIn.java").read_text()
        return Launch(command, data, files={source: text})

    def probe(self) -> None:
        find = _string("find", "probe") + _string("$db", DATABASE)
        reply = _ask(self.host, self.port, find)
        # Whole or floating: servers differ in how they write the number one.
        if b"\x01ok\0" + struct.pack("<d", 1) not in reply and b"\x10ok\0\1\0\0\0" not in reply:
            raise NotReadyError("a query failed")


def _string(name: str, value: str) -> bytes:
    encoded = value.encode() + b"\0"
    return b"\x02" + name.encode() + b"\0" + struct.pack("<i", len(encoded)) + encoded


def _ask(host: str, port: int, elements: bytes) -> bytes:
    document = struct.pack("<i", len(elements) + 5) + elements + b"\0"
    body = struct.pack("<iB", 0, 0) + document
    with socket.create_connection((host, port), 3) as connection:
        connection.sendall(struct.pack("<iiii", 16 + len(body), 1, 0, _MESSAGE) + body)
        answers = connection.makefile("rb")
        length = answers.read(4)
        if len(length) < 4:
            raise NotReadyError("the connection ended")
        return answers.read(struct.unpack("<i", length)[0] - 4)
