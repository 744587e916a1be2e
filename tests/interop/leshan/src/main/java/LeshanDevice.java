import java.io.File;
import java.io.IOException;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

import org.eclipse.californium.core.CoapClient;
import org.eclipse.californium.core.CoapResponse;
import org.eclipse.californium.core.coap.CoAP;
import org.eclipse.californium.core.config.CoapConfig;
import org.eclipse.californium.core.network.CoapEndpoint;
import org.eclipse.californium.elements.config.Configuration;
import org.eclipse.californium.scandium.config.DtlsConfig;
import org.eclipse.leshan.client.LeshanClient;
import org.eclipse.leshan.client.LeshanClientBuilder;
import org.eclipse.leshan.client.object.Security;
import org.eclipse.leshan.client.object.Server;
import org.eclipse.leshan.client.resource.BaseInstanceEnabler;
import org.eclipse.leshan.client.resource.ObjectsInitializer;
import org.eclipse.leshan.client.servers.LwM2mServer;
import org.eclipse.leshan.core.model.ObjectLoader;
import org.eclipse.leshan.core.model.ObjectModel;
import org.eclipse.leshan.core.model.ResourceModel;
import org.eclipse.leshan.core.model.StaticModel;
import org.eclipse.leshan.core.node.LwM2mResource;
import org.eclipse.leshan.core.request.BindingMode;
import org.eclipse.leshan.core.request.argument.Arguments;
import org.eclipse.leshan.core.response.ExecuteResponse;
import org.eclipse.leshan.core.response.ReadResponse;
import org.eclipse.leshan.core.response.WriteResponse;
import org.eclipse.leshan.transport.californium.client.endpoint.CaliforniumClientEndpoint;
import org.eclipse.leshan.transport.californium.client.endpoint.CaliforniumClientEndpointsProvider;
import org.eclipse.leshan.transport.californium.client.endpoint.ClientProtocolProvider;
import org.eclipse.leshan.transport.californium.client.endpoint.coap.CoapClientProtocolProvider;
import org.eclipse.leshan.transport.californium.client.endpoint.coaps.CoapsClientProtocolProvider;

/**
 * A plain device on Leshan's client library with a working Firmware Update object (5, version 1.1).
 *
 * It keeps what it gets in a folder and restarts into it: a package begins with the line "firmware-version: X". Whatever
 * happens is printed as one line of text on stdout, so that a test can wait for it. A line "deregister" on stdin
 * ends it politely; the end of stdin ends it at once.
 *
 * Credentials for coaps are system properties: psk.identity and psk.key (hex), or files in DER: key, public and
 * server.key, or key, certificate and server.certificate. cid=off offers no connection id.
 */
public final class LeshanDevice {

    private static final int PACKAGE_LIMIT = 4 * 1024 * 1024;

    private final String server;
    private final String endpoint;
    private final Path folder;
    private final int lifetime;
    private final long deliveryMethod;
    private final ExecutorService worker = Executors.newSingleThreadExecutor();
    private LeshanClient client;
    private String version;
    private long lastResult;

    private LeshanDevice(String server, String endpoint, Path folder, String version, int lifetime, long deliveryMethod) {
        this.server = server;
        this.endpoint = endpoint;
        this.folder = folder;
        this.version = version;
        this.lifetime = lifetime;
        this.deliveryMethod = deliveryMethod;
    }

    public static void main(String[] args) throws Exception {
        if (args.length != 6) {
            System.err.println("usage: LeshanDevice SERVER_URI ENDPOINT FOLDER VERSION LIFETIME pull|push|both");
            System.exit(2);
        }
        long method = List.of("pull", "push", "both").indexOf(args[5]);
        LeshanDevice device = new LeshanDevice(args[0], args[1], Path.of(args[2]), args[3], Integer.parseInt(args[4]), method);
        device.boot();
        for (int c = System.in.read(); c != -1; c = System.in.read()) {
            if (c == '\n') {
                device.client.destroy(true);
                say("deregistered");
                break;
            }
        }
        System.exit(0);
    }

    private static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    private Configuration configuration(Configuration configuration) {
        boolean hasCid = !"off".equals(System.getProperty("cid"));
        // Without a length none is offered; with 0 the server's is used and none is asked for.
        return configuration.set(CoapConfig.MAX_RESOURCE_BODY_SIZE, PACKAGE_LIMIT)
                .set(DtlsConfig.DTLS_CONNECTION_ID_LENGTH, hasCid ? 0 : null);
    }

    private static byte[] file(String property) throws IOException {
        return Files.readAllBytes(Path.of(System.getProperty(property)));
    }

    private Security security() throws IOException {
        String identity = System.getProperty("psk.identity");
        if (identity != null) {
            byte[] key = HexFormat.of().parseHex(System.getProperty("psk.key"));
            return Security.psk(server, 123, identity.getBytes(StandardCharsets.UTF_8), key);
        }
        if (System.getProperty("server.key") != null) {
            return Security.rpk(server, 123, file("public"), file("key"), file("server.key"));
        }
        if (System.getProperty("server.certificate") != null) {
            return Security.x509(server, 123, file("certificate"), file("key"), file("server.certificate"));
        }
        return Security.noSec(server, 123);
    }

    private void boot() throws IOException {
        List<ObjectModel> models = new ArrayList<>(ObjectLoader.loadDefault());
        ObjectsInitializer objects = new ObjectsInitializer(new StaticModel(models));
        objects.setInstancesForObject(0, security());
        objects.setInstancesForObject(1, new Server(123, lifetime, EnumSet.of(BindingMode.U), false, BindingMode.U));
        // The initializer insists on a factory, although instances are static here.
        objects.setFactoryForObject(3, (model, id, used) -> new DeviceObject());
        objects.setInstancesForObject(3, new DeviceObject());
        objects.setFactoryForObject(5, (model, id, used) -> new FirmwareObject());
        objects.setInstancesForObject(5, new FirmwareObject());
        ClientProtocolProvider protocol =
                server.startsWith("coaps:") ? new CoapsClientProtocolProvider() : new CoapClientProtocolProvider();
        CaliforniumClientEndpointsProvider.Builder provider = new CaliforniumClientEndpointsProvider.Builder(protocol);
        provider.setConfiguration(configuration(provider.createDefaultConfiguration()));
        provider.setClientAddress(InetAddress.getLoopbackAddress());
        client = new LeshanClientBuilder(endpoint).setObjects(objects.createAll()).setEndpointsProviders(provider.build()).build();
        client.start();
        say("booted " + version);
    }

    /** What a real device does after Execute: it goes away without a word and comes back as the new image. */
    private void reboot(byte[] image) {
        try {
            Thread.sleep(300);
            client.destroy(false);
            String line = new String(image, 0, Math.min(64, image.length), StandardCharsets.ISO_8859_1).split("\n", 2)[0];
            if (line.startsWith("firmware-version: ")) {
                version = line.substring("firmware-version: ".length());
                lastResult = 1;
            } else {
                lastResult = 8;
            }
            boot();
        } catch (IOException | InterruptedException e) {
            say("broken " + e);
        }
    }

    /** Object 3 with what an update needs: manufacturer, model, firmware version, reboot. */
    private final class DeviceObject extends BaseInstanceEnabler {
        @Override
        public ReadResponse read(LwM2mServer from, int resource) {
            return switch (resource) {
                case 0 -> ReadResponse.success(0, "Leshan");
                case 1 -> ReadResponse.success(1, "Library");
                case 2 -> ReadResponse.success(2, endpoint);
                case 3 -> ReadResponse.success(3, version);
                case 11 -> ReadResponse.success(11, java.util.Map.of(0, 0L), ResourceModel.Type.INTEGER);
                case 14 -> ReadResponse.success(14, offset);
                case 16 -> ReadResponse.success(16, "U");
                default -> ReadResponse.notFound();
            };
        }

        private String offset = "+00:00";

        @Override
        public WriteResponse write(LwM2mServer from, boolean replace, int resource, LwM2mResource value) {
            if (resource != 14) {
                return WriteResponse.methodNotAllowed();
            }
            offset = (String) value.getValue();
            fireResourceChange(14);
            return WriteResponse.success();
        }

        @Override
        public ExecuteResponse execute(LwM2mServer from, int resource, Arguments arguments) {
            if (resource != 4) {
                return ExecuteResponse.methodNotAllowed();
            }
            say("reboot requested");
            return ExecuteResponse.success();
        }

        @Override
        public List<Integer> getAvailableResourceIds(ObjectModel model) {
            return Arrays.asList(0, 1, 2, 3, 4, 11, 14, 16);
        }
    }

    /** Object 5: push into resource 0 or pull from the URI in resource 1. */
    private final class FirmwareObject extends BaseInstanceEnabler {
        private long state;
        private long result = lastResult;
        private String uri = "";
        private byte[] image;

        private void set(long newState, long newResult) {
            state = newState;
            result = newResult;
            say("state " + state + " result " + result);
            fireResourcesChange(getResourcePaths(3, 5));
        }

        private void keep(byte[] bytes) {
            try {
                Files.write(folder.resolve(endpoint + ".bin"), bytes);
                image = bytes;
                say("kept " + bytes.length);
                set(2, 0);
            } catch (IOException e) {
                set(0, 2);
            }
        }

        @Override
        public ReadResponse read(LwM2mServer from, int resource) {
            return switch (resource) {
                case 1 -> ReadResponse.success(1, uri);
                case 3 -> ReadResponse.success(3, state);
                case 5 -> ReadResponse.success(5, result);
                // Over which protocols it downloads: 0 CoAP, 1 CoAPS.
                case 8 -> ReadResponse.success(8, java.util.Map.of(0, server.startsWith("coaps:") ? 1L : 0L), ResourceModel.Type.INTEGER);
                case 9 -> ReadResponse.success(9, deliveryMethod);
                default -> ReadResponse.notFound();
            };
        }

        @Override
        public WriteResponse write(LwM2mServer from, boolean replace, int resource, LwM2mResource value) {
            switch (resource) {
            case 0:
                byte[] bytes = (byte[]) value.getValue();
                if (bytes.length == 0 || (bytes.length == 1 && bytes[0] == 0)) {
                    image = null;
                    set(0, 0);
                } else if (state != 0) {
                    return WriteResponse.badRequest("not idle");
                } else {
                    keep(bytes);
                }
                return WriteResponse.success();
            case 1:
                uri = (String) value.getValue();
                if (uri.isEmpty()) {
                    image = null;
                    set(0, 0);
                } else if (state != 0) {
                    return WriteResponse.badRequest("not idle");
                } else {
                    set(1, 0);
                    worker.submit(this::download);
                }
                return WriteResponse.success();
            default:
                return WriteResponse.methodNotAllowed();
            }
        }

        private CoapEndpoint socket() {
            Configuration configuration = configuration(Configuration.createStandardWithoutFile());
            return CoapEndpoint.builder().setConfiguration(configuration).build();
        }

        /** What the device talks to its server through already. */
        private CoapEndpoint association() {
            LwM2mServer registered = client.getRegisteredServers().values().iterator().next();
            return ((CaliforniumClientEndpoint) client.getEndpoint(registered)).getCoapEndpoint();
        }

        private void download() {
            boolean isSecure = uri.startsWith("coaps:");
            CoapEndpoint socket = isSecure ? association() : socket();
            CoapClient http = new CoapClient(uri).setEndpoint(socket).setTimeout(600_000L);
            try {
                CoapResponse response = http.get();
                if (response == null) {
                    set(0, 4);
                } else if (response.getCode() == CoAP.ResponseCode.CONTENT) {
                    keep(response.getPayload());
                } else {
                    say("answer " + response.getCode());
                    set(0, 7);
                }
            } catch (Exception e) {
                say("download failed " + e);
                set(0, 4);
            } finally {
                http.shutdown();
                if (!isSecure) {
                    socket.destroy();
                }
            }
        }

        @Override
        public ExecuteResponse execute(LwM2mServer from, int resource, Arguments arguments) {
            if (resource != 2 || state != 2) {
                return ExecuteResponse.methodNotAllowed();
            }
            set(3, 0);
            byte[] installed = image;
            worker.submit(() -> reboot(installed));
            return ExecuteResponse.success();
        }

        @Override
        public List<Integer> getAvailableResourceIds(ObjectModel model) {
            return Arrays.asList(0, 1, 2, 3, 5, 8, 9);
        }
    }
}
