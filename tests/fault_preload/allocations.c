/* Makes allocations fail, of chosen libraries only: librdkafka ends the process when one of its own does. */

#include <stddef.h>
#include <stdint.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);

static uintptr_t code[64][2];
static int libraries;
static long until_first, until_last, failed;

void add_code(uintptr_t start, uintptr_t end) {
    code[libraries][0] = start;
    code[libraries++][1] = end;
}

/* From here on, the first-th allocation fails and those after it, count in all. */
void fail_allocations(long first, long count) {
    __atomic_store_n(&failed, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&until_last, first + count, __ATOMIC_SEQ_CST);
    __atomic_store_n(&until_first, first, __ATOMIC_SEQ_CST);
}

long failed_allocations(void) { return __atomic_load_n(&failed, __ATOMIC_SEQ_CST); }

static int fails(void *caller) {
    for (int i = 0; i < libraries; i++) {
        if ((uintptr_t)caller < code[i][0] || (uintptr_t)caller >= code[i][1])
            continue;
        if (__atomic_sub_fetch(&until_last, 1, __ATOMIC_SEQ_CST) <= 0)
            return 0;
        if (__atomic_sub_fetch(&until_first, 1, __ATOMIC_SEQ_CST) > 0)
            return 0;
        __atomic_add_fetch(&failed, 1, __ATOMIC_SEQ_CST);
        return 1;
    }
    return 0;
}

void *malloc(size_t size) { return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size); }

void *calloc(size_t count, size_t size) {
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size) {
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(memory, size);
}
