import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Whether Kafka's own producer takes a configuration. Each argument is one: name=value, separated by semicolons. Standard
 * output: a line for each, "taken" or "refused".
 */
public class CheckOracle {
    public static void main(String[] args) {
        for (String given : args) {
            Map<String, Object> config = new HashMap<>();
            config.put("bootstrap.servers", "127.0.0.1:1");
            for (String pair : given.split(";")) {
                config.put(pair.substring(0, pair.indexOf('=')), pair.substring(pair.indexOf('=') + 1));
            }
            try {
                new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer()).close();
                System.out.println("taken");
            } catch (KafkaException error) {
                System.out.println("refused");
            }
        }
    }
}
