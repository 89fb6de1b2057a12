import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import java.util.List;

/** Serves the MongoDB wire protocol from an H2 file: java -cp 'lib/*' StandIn.java HOST PORT FILE. */
class StandIn {
    /** Its own versions stop at wire version 8, which today's drivers refuse. */
    private static final MongoVersion VERSION = new MongoVersion() {
        @Override
        public List<Integer> getVersionArray() {
            return List.of(5, 0, 0);
        }

        @Override
        public int getWireVersion() {
            return 13;
        }
    };

    public static void main(String[] arguments) {
        H2Backend backend = new H2Backend(arguments[2]);
        backend.version(VERSION);
        MongoServer server = new MongoServer(backend);
        // Closes the file: what was written last is not left to the store's own rhythm.
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
        server.bind(arguments[0], Integer.parseInt(arguments[1]));
    }
}
