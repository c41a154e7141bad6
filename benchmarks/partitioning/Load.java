import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.util.Arrays;
import java.util.Properties;
import java.util.stream.Collectors;
import java.util.stream.LongStream;
import org.apache.kafka.clients.producer.Callback;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * A steady load from Kafka's own producer, paced and measured as in load.py. Standard output: a line of JSON.
 *
 * Arguments: SERVERS TOPIC RATE SECONDS SIZE STRIDE WARM_UP OVERTIME BURST_NS [OPTION=VALUE ...]; of STRIDE records the
 * latency of one is measured.
 */
public class Load {
    private static final long TURN = 100;
    private static KafkaProducer<byte[], byte[]> producer;
    private static String topic;
    private static byte[] value;
    private static int stride;
    private static double overtime;
    private static long burst;
    private static volatile long failed;   // written by the producer's thread only, as the next two
    private static long[] latencies;
    private static int measured;

    public static void main(String[] arguments) throws Exception {
        Properties options = new Properties();
        options.put("bootstrap.servers", arguments[0]);
        options.put("key.serializer", ByteArraySerializer.class.getName());
        options.put("value.serializer", ByteArraySerializer.class.getName());
        topic = arguments[1];
        long rate = Long.parseLong(arguments[2]);
        double seconds = Double.parseDouble(arguments[3]);
        value = new byte[Integer.parseInt(arguments[4])];
        Arrays.fill(value, (byte) 'v');
        stride = Integer.parseInt(arguments[5]);
        double warmUp = Double.parseDouble(arguments[6]);
        overtime = Double.parseDouble(arguments[7]);
        burst = Long.parseLong(arguments[8]);
        for (String option : Arrays.copyOfRange(arguments, 9, arguments.length)) {
            options.put(option.split("=", 2)[0], option.split("=", 2)[1]);
        }
        OperatingSystemMXBean system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        producer = new KafkaProducer<>(options);
        producer.partitionsFor(topic);
        latencies = new long[(int) (rate * Math.max(seconds, warmUp) / stride) + 2];

        long before = pace(rate, warmUp);
        producer.flush();
        measured = 0;
        long requests = requests();
        long cpu = system.getProcessCpuTime();
        long start = System.nanoTime();
        long sent = pace(rate, seconds);
        producer.flush();
        double took = (System.nanoTime() - start) / 1e9;
        cpu = system.getProcessCpuTime() - cpu;
        requests = requests() - requests;
        producer.close();
        System.out.printf(
            "{\"sent\": %d, \"sent_before\": %d, \"failed\": %d, \"seconds\": %f, \"cpu_seconds\": %f, \"requests\": %d, "
                + "\"latencies_us\": [%s]}%n",
            sent, before, failed, took, cpu / 1e9, requests,
            LongStream.of(latencies).limit(measured).mapToObj(Long::toString).collect(Collectors.joining(", ")));
    }

    private static long pace(long rate, double seconds) throws InterruptedException {
        long count = Math.round(rate * seconds);
        long start = System.nanoTime();
        long sent = 0;
        while (sent < count) {
            long now = System.nanoTime() - start;
            if (now > overtime * seconds * 1e9) {
                break;
            }
            long due = Math.min(Math.min(count, sent + TURN), now * rate / 1_000_000_000 + 1);
            if (due == sent) {
                Thread.sleep(burst / 1_000_000, (int) (burst % 1_000_000));
            }
            while (sent < due) {
                send(sent++);
            }
        }
        return sent;
    }

    private static void send(long i) {
        producer.send(new ProducerRecord<>(topic, value), i % stride == 0 ? timed() : null);
    }

    private static Callback timed() {
        long start = System.nanoTime();
        return (metadata, error) -> {
            latencies[measured++] = (System.nanoTime() - start) / 1000;
            if (error != null) {
                failed++;
            }
        };
    }

    private static long requests() {
        return producer.metrics().entrySet().stream()
            .filter(e -> e.getKey().group().equals("producer-metrics") && e.getKey().name().equals("request-total"))
            .mapToLong(e -> ((Double) e.getValue().metricValue()).longValue())
            .sum();
    }
}
