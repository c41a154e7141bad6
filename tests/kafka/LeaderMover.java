import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;

/**
 * Moves the leaders of a topic to their next replica, as an operator who rebalances a cluster would.
 *
 * <p>Argument: bootstrap.servers. Standard input: lines of a topic and a number n; every n-th partition moves. Standard
 * output: a line for each, how many leaders moved, or "error" and why. Ends with its input.
 */
public class LeaderMover {
    public static void main(String[] args) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", args[0], "default.api.timeout.ms", 10_000,
                "request.timeout.ms", 5_000, "reconnect.backoff.max.ms", 100);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        try (Admin admin = Admin.create(config)) {
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                String[] words = line.split(" ");
                try {
                    System.out.println(move(admin, words[0], Integer.parseInt(words[1])));
                } catch (Exception error) {
                    System.out.println(("error " + error).replace('\n', ' '));
                }
            }
        }
    }

    /** Reorders the replicas, which moves no data, and asks for the one that is now the first to lead. */
    private static long move(Admin admin, String topic, int step) throws Exception {
        Map<TopicPartition, Optional<NewPartitionReassignment>> orders = new HashMap<>();
        for (TopicPartitionInfo info : admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions()) {
            if (info.partition() % step == 0) {
                List<Integer> replicas = new ArrayList<>(info.replicas().stream().map(Node::id).toList());
                Collections.rotate(replicas, -1);
                orders.put(new TopicPartition(topic, info.partition()),
                        Optional.of(new NewPartitionReassignment(replicas)));
            }
        }
        admin.alterPartitionReassignments(orders).all().get();
        // A partition whose new first replica is not in sync keeps its leader; that is no error here.
        return admin.electLeaders(ElectionType.PREFERRED, orders.keySet()).partitions().get().values().stream()
                .filter(Optional::isEmpty).count();
    }
}
