import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.config.SslConfigs;
import org.apache.kafka.common.config.types.Password;
import org.apache.kafka.common.security.JaasContext;
import org.apache.kafka.common.security.ssl.DefaultSslEngineFactory;
import org.apache.kafka.common.utils.Utils;

/**
 * How Kafka reads a value. Arguments: what it is (text, host, jaas or certificates) and the value in base64, by turns. Standard
 * output: a line for each, "taken" with what was read in base64, or "refused".
 */
public class ReadOracle {
    public static void main(String[] args) {
        for (int i = 0; i < args.length; i += 2) {
            try {
                String read = read(args[i], decoded(args[i + 1]));
                System.out.println("taken " + Base64.getEncoder().encodeToString(read.getBytes("UTF-8")));
            } catch (Exception error) {
                System.out.println("refused");
            }
        }
    }

    private static String decoded(String text) throws Exception {
        return new String(Base64.getDecoder().decode(text), "UTF-8");
    }

    private static String read(String kind, String value) throws Exception {
        switch (kind) {
            case "text":
                return (String) ConfigDef.parseType("client.id", value, ConfigDef.Type.STRING);
            case "host":
                String entry = (String) ConfigDef.parseType("bootstrap.servers", value, ConfigDef.Type.STRING);
                return Utils.getHost(entry).toString() + ':' + Utils.getPort(entry);
            case "jaas":
                Map<String, Object> login = Map.of("sasl.jaas.config", new Password(value));
                Map<String, ?> options = JaasContext.loadClientContext(login).configurationEntries().get(0).getOptions();
                return new TreeMap<>(options).values().toString();
            case "certificates":
                DefaultSslEngineFactory factory = new DefaultSslEngineFactory();
                factory.configure(Map.of(
                    SslConfigs.SSL_PROTOCOL_CONFIG, "TLSv1.3",
                    SslConfigs.SSL_ENABLED_PROTOCOLS_CONFIG, List.of("TLSv1.3"),
                    SslConfigs.SSL_CIPHER_SUITES_CONFIG, List.of(),
                    SslConfigs.SSL_KEYMANAGER_ALGORITHM_CONFIG, SslConfigs.DEFAULT_SSL_KEYMANGER_ALGORITHM,
                    SslConfigs.SSL_TRUSTMANAGER_ALGORITHM_CONFIG, SslConfigs.DEFAULT_SSL_TRUSTMANAGER_ALGORITHM,
                    SslConfigs.SSL_TRUSTSTORE_TYPE_CONFIG, "PEM",
                    SslConfigs.SSL_TRUSTSTORE_CERTIFICATES_CONFIG, new Password(value)));
                return String.valueOf(factory.truststore().size());
            default:
                throw new IllegalArgumentException(kind);
        }
    }
}
