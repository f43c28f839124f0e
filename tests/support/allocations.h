/* Memory that runs out when a test wants it to. Programs that link this wrap malloc and its kin
 * (tests/CMakeLists.txt), so that it sees what the library's own objects ask for. */
#ifndef SUPPORT_ALLOCATIONS_H
#define SUPPORT_ALLOCATIONS_H

#include <stdbool.h>
#include <stddef.h>

/* The nth allocation from now on fails, once; 0: none does. Any thread's counts. */
void allocations_fail(size_t nth);
/* Whether it has. */
bool allocations_failed(void);

/* Has jansson ask here as well: its allocator is the process's. Before any other thread is there. Its
 * allocations are measured, and fail in their turn only if failing. */
void allocations_take_jansson(bool failing);

/* Blocks that are not freed. */
size_t allocations_live(void);

/* Starts to measure; then, the most bytes that were in use at a time beyond those of the start. */
void allocations_measure(void);
size_t allocations_most_bytes(void);

#endif
