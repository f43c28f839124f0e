/* The table and the heap of outstanding calls. */
#include "client/outstanding.h"

#include <stdlib.h>

/* ---- by due time ---- */

static void place(struct crew_due_heap *heap, size_t index, struct crew_pending *call)
{
    heap->items[index] = call;
    call->heap_index = index;
}

static void sift_up(struct crew_due_heap *heap, size_t index, struct crew_pending *call)
{
    while (index > 0) {
        size_t parent = (index - 1) / 2;
        if (heap->items[parent]->due_ms <= call->due_ms)
            break;
        place(heap, index, heap->items[parent]);
        index = parent;
    }
    place(heap, index, call);
}

static void sift_down(struct crew_due_heap *heap, size_t index, struct crew_pending *call)
{
    for (;;) {
        size_t child = 2 * index + 1;
        if (child + 1 < heap->count && heap->items[child + 1]->due_ms < heap->items[child]->due_ms)
            child++;
        if (child >= heap->count || heap->items[child]->due_ms >= call->due_ms)
            break;
        place(heap, index, heap->items[child]);
        index = child;
    }
    place(heap, index, call);
}

crew_status crew_due_add(struct crew_due_heap *heap, struct crew_pending *call)
{
    if (heap->count == heap->room) {
        size_t room = heap->room ? heap->room * 2 : 64;
        struct crew_pending **items = realloc(heap->items, room * sizeof(struct crew_pending *));
        if (!items)
            return CREW_NO_MEMORY;
        heap->items = items;
        heap->room = room;
    }
    sift_up(heap, heap->count++, call);
    return CREW_OK;
}

void crew_due_update(struct crew_due_heap *heap, struct crew_pending *call)
{
    sift_up(heap, call->heap_index, call);
    sift_down(heap, call->heap_index, call);
}

void crew_due_remove(struct crew_due_heap *heap, struct crew_pending *call)
{
    if (call->heap_index == SIZE_MAX)
        return;
    size_t index = call->heap_index;
    struct crew_pending *last = heap->items[--heap->count];
    call->heap_index = SIZE_MAX;
    if (last == call)
        return;
    place(heap, index, last);
    crew_due_update(heap, last);
}

struct crew_pending *crew_due_first(const struct crew_due_heap *heap)
{
    return heap->count ? heap->items[0] : NULL;
}

void crew_due_fini(struct crew_due_heap *heap)
{
    free(heap->items);
    *heap = (struct crew_due_heap){ 0 };
}

/* ---- by id ---- */

static crew_status grow(struct crew_call_table *table)
{
    size_t room = table->room ? table->room * 2 : 128;
    struct crew_pending **slots = calloc(room, sizeof(struct crew_pending *));
    if (!slots)
        return CREW_NO_MEMORY;
    for (size_t i = 0; i < table->room; i++)
        if (table->slots[i])
            slots[table->slots[i]->id & (room - 1)] = table->slots[i];
    free(table->slots);
    table->slots = slots;
    table->room = room;
    return CREW_OK;
}

crew_status crew_table_add(struct crew_call_table *table, struct crew_pending *call)
{
    if (table->count >= table->most)
        return CREW_OVERLOADED;
    if (table->count * 2 >= table->room && grow(table) != CREW_OK)
        return CREW_NO_MEMORY;
    do
        table->last_id++;
    while (table->last_id == 0 || table->slots[table->last_id & (table->room - 1)]);
    call->id = table->last_id;
    table->slots[call->id & (table->room - 1)] = call;
    table->count++;
    return CREW_OK;
}

struct crew_pending *crew_table_find(const struct crew_call_table *table, uint32_t id)
{
    struct crew_pending *call = table->room ? table->slots[id & (table->room - 1)] : NULL;
    return call && call->id == id ? call : NULL;
}

void crew_table_remove(struct crew_call_table *table, const struct crew_pending *call)
{
    table->slots[call->id & (table->room - 1)] = NULL;
    table->count--;
}

void crew_table_fini(struct crew_call_table *table)
{
    free(table->slots);
    *table = (struct crew_call_table){ 0 };
}
