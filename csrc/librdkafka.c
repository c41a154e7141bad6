#include "librdkafka.h"

#include <string.h>

fp_librdkafka_table fp_librdkafka_bound;

#define FP_NAME(ret, name, args) #name,
static const char *const names[] = {FP_LIBRDKAFKA_FUNCTIONS(FP_NAME)};

#define FP_OFFSET(ret, name, args) offsetof(fp_librdkafka_table, name),
static const size_t offsets[] = {FP_LIBRDKAFKA_FUNCTIONS(FP_OFFSET)};

int fp_librdkafka_count(void) { return (int)(sizeof names / sizeof *names); }

const char *fp_librdkafka_name(int i) { return names[i]; }

void fp_librdkafka_bind(int i, void *address) {
    memcpy((char *)&fp_librdkafka_bound + offsets[i], &address, sizeof address);
}
