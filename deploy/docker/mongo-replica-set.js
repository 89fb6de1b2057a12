// Makes the one-member replica set, once, and waits until it has a primary.
// Run by mongosh, connected to that member directly.
const name = "rs0";
const member = "mongo:27017";

try {
  rs.status();
} catch (error) {
  if (error.codeName !== "NotYetInitialized") throw error;
  rs.initiate({ _id: name, members: [{ _id: 0, host: member }] });
}

const deadline = Date.now() + 60_000;
while (!db.hello().isWritablePrimary) {
  if (Date.now() > deadline) throw new Error(`${member} did not become primary within 60 s`);
  sleep(500);
}
print(`${name} has a primary`);
