import java.lang.management.ManagementFactory;
import java.net.InetSocketAddress;
import java.util.Collection;
import java.util.concurrent.atomic.AtomicLong;

import com.sun.management.OperatingSystemMXBean;
import org.eclipse.californium.core.config.CoapConfig;
import org.eclipse.leshan.core.endpoint.Protocol;
import org.eclipse.leshan.core.observation.Observation;
import org.eclipse.leshan.server.LeshanServerBuilder;
import org.eclipse.leshan.server.registration.Registration;
import org.eclipse.leshan.server.registration.RegistrationListener;
import org.eclipse.leshan.server.registration.RegistrationUpdate;
import org.eclipse.leshan.transport.californium.server.endpoint.CaliforniumServerEndpointsProvider;
import org.eclipse.leshan.transport.californium.server.endpoint.coap.CoapServerProtocolProvider;

/**
 * A small Leshan server, the peer of the benchmarks. Each line on stdin makes it print one line with what it has done so
 * far: registrations, updates, CPU seconds, and bytes of heap in use after a collection when the line is "memory".
 */
public final class LeshanServer {

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[0]);
        CaliforniumServerEndpointsProvider endpoints = new CaliforniumServerEndpointsProvider.Builder(new CoapServerProtocolProvider())
                .setConfiguration(c -> c.set(CoapConfig.MAX_ACTIVE_PEERS, 400_000).set(CoapConfig.PROTOCOL_STAGE_THREAD_COUNT, 1))
                .addEndpoint(new InetSocketAddress("127.0.0.1", port), Protocol.COAP)
                .build();
        org.eclipse.leshan.server.LeshanServer server = new LeshanServerBuilder().setEndpointsProviders(endpoints).build();
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
            }
            System.out.printf("%d %d %.6f %d%n", registered.get(), updated.get(), system.getProcessCpuTime() / 1e9, heap);
        }
        System.exit(0);
    }
}
