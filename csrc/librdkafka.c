#include "librdkafka.h"

#include <string.h>

fp_librdkafka_table fp_librdkafka;

#define FP_NAME(ret, name, args) #name,
static const char *const names[] = {FP_LIBRDKAFKA_FUNCTIONS(FP_NAME)};

#define FP_OFFSET(ret, name, args) offsetof(fp_librdkafka_table, name),
static const size_t offsets[] = {FP_LIBRDKAFKA_FUNCTIONS(FP_OFFSET)};

int fp_librdkafka_count(void) { return (int)(sizeof names / sizeof *names); }

const char *fp_librdkafka_name(int i) { return names[i]; }

void fp_librdkafka_bind(int i, void *address) {
    memcpy((char *)&fp_librdkafka + offsets[i], &address, sizeof address);
}

/* librdkafka takes a timestamp of 0 for "now" wherever it can be given one, and
 * has no call that sets it afterwards. It reads it by a public function, though,
 * from the private part of the message, which follows the public one. So the
 * word is found by which change that function sees. rd_kafka_msg_t has had 88
 * bytes and more there in every version. Were the timestamp elsewhere, it would
 * stay what it was. */
enum { PRIVATE_WORDS = 8 };

void fp_stamp_zero(rd_kafka_message_t *message) {
    int64_t *words = (int64_t *)(message + 1);
    int type, i;
    int64_t timestamp = fp_librdkafka.rd_kafka_message_timestamp(message, &type);

    for (i = 0; i < PRIVATE_WORDS; i++) {
        if (words[i] != timestamp)
            continue;
        words[i] = 0;
        if (fp_librdkafka.rd_kafka_message_timestamp(message, &type) == 0)
            return;
        words[i] = timestamp;
    }
}
