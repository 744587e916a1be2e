import java.lang.management.ManagementFactory;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PublicKey;
import java.security.spec.PKCS8EncodedKeySpec;
import java.security.spec.X509EncodedKeySpec;
import java.util.Arrays;
import java.util.Collection;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;

import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

import com.sun.management.OperatingSystemMXBean;
import org.eclipse.californium.core.CoapExchange;
import org.eclipse.californium.core.CoapResource;
import org.eclipse.californium.core.coap.CoAP;
import org.eclipse.californium.core.config.CoapConfig;
import org.eclipse.leshan.core.endpoint.Protocol;
import org.eclipse.leshan.core.node.LwM2mSingleResource;
import org.eclipse.leshan.core.observation.Observation;
import org.eclipse.leshan.core.peer.OscoreIdentity;
import org.eclipse.leshan.core.request.ContentFormat;
import org.eclipse.leshan.core.request.ReadRequest;
import org.eclipse.leshan.core.request.WriteRequest;
import org.eclipse.leshan.core.response.ReadResponse;
import org.eclipse.leshan.server.LeshanServerBuilder;
import org.eclipse.leshan.server.registration.Registration;
import org.eclipse.leshan.server.registration.RegistrationListener;
import org.eclipse.leshan.server.registration.RegistrationUpdate;
import org.eclipse.leshan.servers.security.SecurityInfo;
import org.eclipse.leshan.servers.security.SecurityStore;
import org.eclipse.leshan.transport.californium.server.endpoint.CaliforniumServerEndpointsProvider;
import org.eclipse.leshan.transport.californium.server.endpoint.coap.CoapServerProtocolProvider;
import org.eclipse.leshan.transport.californium.server.endpoint.coaps.CoapsServerProtocolProvider;

/**
 * A small Leshan server, the peer of the benchmarks. Besides its registrations it serves /blob (300 KB) and /small (1 KB).
 *
 * Each line on stdin makes it print one line with what it has done so far: registrations, updates, CPU seconds, and
 * bytes of heap in use after a collection when the line is "memory". The line "push" first writes the blob to /5/0/0 of
 * every registered device and waits for all of them. "read ENDPOINT" reads /3/0/0 of a device and prints the value
 * before that line.
 *
 * With a second port it also speaks coaps there. The key of a device is the first 16 bytes of HMAC-SHA256(content of
 * the file in the property psk.secret, endpoint name), or its public key is in the file of the property public, and
 * the server's own keys in those of server.key and server.public (DER).
 */
public final class LeshanServer {

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[0]);
        CaliforniumServerEndpointsProvider.Builder providers = new CaliforniumServerEndpointsProvider.Builder(
                new CoapServerProtocolProvider(), new CoapsServerProtocolProvider())
                .setConfiguration(c -> c.set(CoapConfig.MAX_ACTIVE_PEERS, 400_000)
                        .set(CoapConfig.PROTOCOL_STAGE_THREAD_COUNT, 1)
                        .set(CoapConfig.MAX_RESOURCE_BODY_SIZE, 1 << 20)
                        .set(CoapConfig.PREFERRED_BLOCK_SIZE, 1024)
                        .set(CoapConfig.MAX_MESSAGE_SIZE, 1024))
                .addEndpoint(new InetSocketAddress("127.0.0.1", port), Protocol.COAP);
        LeshanServerBuilder builder = new LeshanServerBuilder();
        if (args.length > 1) {
            providers.addEndpoint(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[1])), Protocol.COAPS);
            builder.setSecurityStore(new Keys());
            if (System.getProperty("server.key") != null) {
                KeyFactory factory = KeyFactory.getInstance("EC");
                builder.setPrivateKey(factory.generatePrivate(new PKCS8EncodedKeySpec(file("server.key"))));
                builder.setPublicKey(factory.generatePublic(new X509EncodedKeySpec(file("server.public"))));
            }
        }
        CaliforniumServerEndpointsProvider endpoints = providers.build();
        org.eclipse.leshan.server.LeshanServer server = builder.setEndpointsProviders(endpoints).build();
        AtomicLong registered = new AtomicLong();
        AtomicLong updated = new AtomicLong();
        server.getRegistrationService().addListener(new RegistrationListener() {
            @Override
            public void registered(Registration now, Registration before, Collection<Observation> observations) {
                registered.incrementAndGet();
            }

            @Override
            public void updated(RegistrationUpdate update, Registration now, Registration before) {
                updated.incrementAndGet();
            }

            @Override
            public void unregistered(Registration gone, Collection<Observation> observations, boolean expired, Registration now) {
            }
        });
        byte[] blob = new byte[300 * 1024];
        new java.util.Random(1).nextBytes(blob);
        endpoints.getCoapServer().add(new Bytes("blob", blob), new Bytes("small", java.util.Arrays.copyOf(blob, 1024)));
        server.start();
        System.out.println("listening " + port);
        OperatingSystemMXBean system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        java.io.BufferedReader in = new java.io.BufferedReader(new java.io.InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            long heap = -1;
            if (line.equals("memory")) {
                System.gc();
                Thread.sleep(500);
                System.gc();
                Runtime runtime = Runtime.getRuntime();
                heap = runtime.totalMemory() - runtime.freeMemory();
            } else if (line.equals("push")) {
                push(server, blob);
            } else if (line.startsWith("read ")) {
                System.out.println(read(server, line.substring("read ".length())));
            }
            System.out.printf("%d %d %.6f %d%n", registered.get(), updated.get(), system.getProcessCpuTime() / 1e9, heap);
        }
        System.exit(0);
    }

    private static byte[] file(String property) throws java.io.IOException {
        return Files.readAllBytes(Path.of(System.getProperty(property)));
    }

    private static Object read(org.eclipse.leshan.server.LeshanServer server, String endpoint) throws InterruptedException {
        Registration registration = server.getRegistrationService().getByEndpoint(endpoint);
        ReadResponse answer = server.send(registration, new ReadRequest(3, 0, 0), 10_000L);
        return answer == null ? "nothing" : answer.isSuccess() ? ((LwM2mSingleResource) answer.getContent()).getValue() : answer.getCode();
    }

    private static void push(org.eclipse.leshan.server.LeshanServer server, byte[] blob) throws InterruptedException {
        java.util.List<Registration> all = new java.util.ArrayList<>();
        server.getRegistrationStore().getAllRegistrations().forEachRemaining(all::add);
        CountDownLatch open = new CountDownLatch(all.size());
        for (Registration registration : all) {
            WriteRequest write = new WriteRequest(ContentFormat.OPAQUE, 5, 0, 0, blob);
            server.send(registration, write, 600_000L, answer -> open.countDown(), error -> open.countDown());
        }
        open.await();
    }

    /** Derives what it is asked for, so that it knows any number of devices. */
    private static final class Keys implements SecurityStore {
        @Override
        public SecurityInfo getByEndpoint(String endpoint) {
            try {
                if (System.getProperty("public") != null) {
                    PublicKey key = KeyFactory.getInstance("EC").generatePublic(new X509EncodedKeySpec(file("public")));
                    return SecurityInfo.newRawPublicKeyInfo(endpoint, key);
                }
                Mac mac = Mac.getInstance("HmacSHA256");
                mac.init(new SecretKeySpec(file("psk.secret"), "HmacSHA256"));
                byte[] tag = mac.doFinal(endpoint.getBytes(StandardCharsets.UTF_8));
                return SecurityInfo.newPreSharedKeyInfo(endpoint, endpoint, Arrays.copyOf(tag, 16));
            } catch (GeneralSecurityException | java.io.IOException e) {
                throw new IllegalStateException(e);
            }
        }

        @Override
        public SecurityInfo getByIdentity(String identity) {
            return getByEndpoint(identity);
        }

        @Override
        public SecurityInfo getByOscoreIdentity(OscoreIdentity identity) {
            return null;
        }
    }

    private static final class Bytes extends CoapResource {
        private final byte[] bytes;

        Bytes(String name, byte[] bytes) {
            super(name);
            this.bytes = bytes;
        }

        @Override
        public void handleGET(CoapExchange exchange) {
            exchange.respond(CoAP.ResponseCode.CONTENT, bytes, 42);
        }
    }
}
