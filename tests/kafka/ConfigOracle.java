import java.util.Map;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.config.ConfigDef;

/**
 * The options of Kafka's own producer. Standard output: a line a key with its name, type and default, between tabs; "null"
 * for a default of null, "required" where there is none.
 */
public class ConfigOracle {
    public static void main(String[] args) {
        for (Map.Entry<String, ConfigDef.ConfigKey> entry : ProducerConfig.configDef().configKeys().entrySet()) {
            ConfigDef.ConfigKey key = entry.getValue();
            String value = key.hasDefault() ? ConfigDef.convertToString(key.defaultValue, key.type) : "required";
            System.out.println(entry.getKey() + '\t' + key.type + '\t' + value);
        }
    }
}
