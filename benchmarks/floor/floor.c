/* Plain C on librdkafka: what there is to reach. rd_kafka_produce_batch() in the tightest loop, over memory that stays.
 *
 * floor SERVERS TOPIC PARTITIONS RECORDS SIZE KEY_SIZE RUN WARM_UP DATA [OPTION=VALUE ...]
 *
 * DATA holds values of SIZE bytes, then as many keys of KEY_SIZE bytes; KEY_SIZE 0: records have none, and go to one
 * partition after the other, RUN records each. Before the RECORDS that count it sends WARM_UP. Each record has memory of
 * its own, side by side as in a column of Arrow's. Every delivery is counted. Prints a line of JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "librdkafka.h"
#include "murmur2.h"

enum { VALUES = 10000, FIRST = 1000, MOST_RUN = 100000 };
enum { F_PARTITION = 8, UNASSIGNED = -1, QUEUE_FULL = -184, PRODUCER = 0 }; /* librdkafka's */

extern rd_kafka_conf_t *rd_kafka_conf_new(void);
extern int rd_kafka_conf_set(rd_kafka_conf_t *, const char *, const char *, char *, size_t);
extern void rd_kafka_conf_set_dr_msg_cb(
    rd_kafka_conf_t *, void (*)(rd_kafka_t *, const rd_kafka_message_t *, void *));
extern rd_kafka_t *rd_kafka_new(int, rd_kafka_conf_t *, char *, size_t);
extern rd_kafka_topic_t *rd_kafka_topic_new(rd_kafka_t *, const char *, rd_kafka_topic_conf_t *);
extern int rd_kafka_produce_batch(rd_kafka_topic_t *, int32_t, int, rd_kafka_message_t *, int);
extern int rd_kafka_poll(rd_kafka_t *, int);
extern int rd_kafka_flush(rd_kafka_t *, int);

static long delivered, failed;
static rd_kafka_message_t messages[MOST_RUN];

static void count(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque) {
    if (message->err)
        failed++;
    else
        delivered++;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static double cpu_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static long memory_kib(const char *what) {
    char line[256];
    long found = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (!strncmp(line, what, strlen(what)))
            found = atol(line + strlen(what));
    if (status)
        fclose(status);
    return found;
}

/* RECORDS items of `size` bytes, those of the file again and again. */
static char *column(const char *distinct, size_t size, long records) {
    char *all = malloc(size ? size * (size_t)records : 1);
    for (long i = 0; all && i < records; i++)
        memcpy(all + (size_t)i * size, distinct + (size_t)(i % VALUES) * size, size);
    return all;
}

static void give_up(const char *why) {
    fprintf(stderr, "floor: %s\n", why);
    exit(1);
}

int main(int argc, char **argv) {
    char why[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (argc < 10)
        give_up("too few arguments");
    const char *topic = argv[2];
    int partitions = atoi(argv[3]);
    long records = atol(argv[4]);
    size_t size = (size_t)atol(argv[5]), key_size = (size_t)atol(argv[6]);
    int run = atoi(argv[7]);
    long warm_up = atol(argv[8]);
    char *data = malloc(VALUES * (size + key_size));
    FILE *file = fopen(argv[9], "rb");
    if (run < 1 || run > MOST_RUN || warm_up < FIRST || !file || fread(data, size + key_size, VALUES, file) != VALUES)
        give_up("no data, or RUN or WARM_UP out of range");
    fclose(file);
    char *values = column(data, size, records), *keys = column(data + VALUES * size, key_size, records);
    if (!values || !keys)
        give_up("no memory");
    free(data);
    if (rd_kafka_conf_set(conf, "bootstrap.servers", argv[1], why, sizeof why))
        give_up(why);
    for (int i = 10; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (!equals)
            give_up(argv[i]);
        *equals = 0;
        if (rd_kafka_conf_set(conf, argv[i], equals + 1, why, sizeof why))
            give_up(why);
    }
    rd_kafka_conf_set_dr_msg_cb(conf, count);
    rd_kafka_t *rk = rd_kafka_new(PRODUCER, conf, why, sizeof why);
    if (!rk)
        give_up(why);
    rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, topic, NULL);

    double start = 0, cpu = 0;
    long idle = 0;
    long goals[] = {FIRST, warm_up - FIRST, records}; /* after the first it is connected, and knows the topic */
    for (int phase = 0; phase < 3; phase++) {
        long goal = goals[phase], sent = 0;
        int32_t partition = 0;
        delivered = 0;
        if (phase == 1) {
            FILE *clear = fopen("/proc/self/clear_refs", "w");
            if (clear) {
                fputs("5", clear);
                fclose(clear);
            }
            idle = memory_kib("VmRSS:");
        }
        cpu = cpu_seconds();
        start = seconds();
        while (sent < goal) {
            int n = goal - sent < run ? (int)(goal - sent) : run;
            for (int i = 0; i < n; i++) {
                size_t at = (size_t)(sent + i < records ? sent + i : (sent + i) % records);
                memset(&messages[i], 0, sizeof messages[i]);
                messages[i].payload = values + at * size;
                messages[i].len = size;
                messages[i].key = key_size ? keys + at * key_size : NULL;
                messages[i].key_len = key_size;
                if (key_size)
                    messages[i].partition =
                        (int32_t)((fp_murmur2(messages[i].key, key_size) & 0x7fffffff) % (uint32_t)partitions);
            }
            for (int left = n; left;) {
                int accepted =
                    rd_kafka_produce_batch(rkt, key_size ? UNASSIGNED : partition, key_size ? F_PARTITION : 0, messages, left), refused = 0;
                rd_kafka_poll(rk, accepted < left ? 1 : 0);
                if (accepted == left)
                    break;
                for (int i = 0; i < left; i++) {
                    if (messages[i].err && messages[i].err != QUEUE_FULL)
                        give_up("a record was refused");
                    if (messages[i].err) {
                        messages[refused] = messages[i];
                        messages[refused++].err = 0;
                    }
                }
                left = refused;
            }
            sent += n;
            partition = (partition + 1) % partitions;
        }
        if (rd_kafka_flush(rk, 120000))
            give_up("flush() timed out");
        if (failed || delivered != goal)
            give_up("not all was delivered");
    }
    start = seconds() - start;
    cpu = cpu_seconds() - cpu;
    printf("{\"records_per_s\": %.1f, \"cpu_ns\": %.2f, \"delivered\": %ld, \"rss_mib\": %.1f}\n", records / start,
           cpu / records * 1e9, delivered, (memory_kib("VmHWM:") - idle) / 1024.0);
    return 0; /* as it is: rd_kafka_destroy() is not what is measured */
}
