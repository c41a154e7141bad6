import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.util.Arrays;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.utils.Utils;

/**
 * Kafka's own answer to "which partition does this key go to".
 *
 * <p>Arguments: numbers of partitions. Standard input: keys, each as an int32 length (big endian) and the bytes, until
 * the end. Standard output: a line a key, its signed murmur2 and then its partition for each argument.
 */
public class PartitionOracle {
    public static void main(String[] args) throws IOException {
        int[] counts = Arrays.stream(args).mapToInt(Integer::parseInt).toArray();
        DataInputStream in = new DataInputStream(new BufferedInputStream(System.in, 1 << 16));
        try (PrintStream out = new PrintStream(new BufferedOutputStream(System.out, 1 << 16))) {
            for (byte[] key = read(in); key != null; key = read(in)) {
                StringBuilder line = new StringBuilder().append(Utils.murmur2(key));
                for (int count : counts) {
                    line.append(' ').append(BuiltInPartitioner.partitionForKey(key, count));
                }
                out.append(line).append('\n');
            }
        }
    }

    /** The next key, or null at the end of the input. A key cut short is an error. */
    private static byte[] read(DataInputStream in) throws IOException {
        in.mark(1);
        if (in.read() < 0) {
            return null;
        }
        in.reset();
        byte[] key = new byte[in.readInt()];
        in.readFully(key);
        return key;
    }
}
