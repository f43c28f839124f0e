/* The table of methods: names, signatures and errors, looked up by a hash of the name. */
#include "service/table.h"

#include <stdlib.h>

#define WORD_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"

/* Apart, so that who has a const dispatcher can count. */
struct holds {
    atomic_uint count;
    crew_dispatcher *dispatcher;
};

void crew_dispatcher_hold(const crew_dispatcher *dispatcher)
{
    atomic_fetch_add(&dispatcher->holds->count, 1);
}

void crew_dispatcher_release(const crew_dispatcher *dispatcher)
{
    struct holds *holds = dispatcher->holds;
    if (atomic_fetch_sub(&holds->count, 1) > 1)
        return;
    crew_dispatcher *last = holds->dispatcher;
    crew_arena_fini(&last->arena);
    free(last->slots);
    free(last);
    free(holds);
}

/* ---- the table ---- */

static size_t hash(crew_string name)
{
    uint64_t h = 14695981039346656037U; /* FNV-1a */
    for (size_t i = 0; i < name.size; i++)
        h = (h ^ (unsigned char)name.data[i]) * 1099511628211U;
    return (size_t)(h ^ h >> 32);
}

/* The slot of a name: its entry's, or the free one where it belongs. */
static size_t find_slot(struct crew_entry *const *slots, size_t slot_count, crew_string name)
{
    size_t at = hash(name) & (slot_count - 1);
    while (slots[at] && !crew_string_equal(slots[at]->name, name))
        at = (at + 1) & (slot_count - 1);
    return at;
}

struct crew_entry *crew_methods_find(const crew_dispatcher *table, crew_string name)
{
    return table->slot_count ? table->slots[find_slot(table->slots, table->slot_count, name)] : NULL;
}

static crew_status reserve(crew_dispatcher *d, size_t count)
{
    size_t slot_count = d->slot_count ? d->slot_count : 16;
    while (slot_count < 2 * count)
        slot_count *= 2;
    if (slot_count == d->slot_count)
        return CREW_OK;
    struct crew_entry **slots = calloc(slot_count, sizeof(struct crew_entry *));
    if (!slots)
        return CREW_NO_MEMORY;
    for (size_t i = 0; i < d->slot_count; i++)
        if (d->slots[i])
            slots[find_slot(slots, slot_count, d->slots[i]->name)] = d->slots[i];
    free(d->slots);
    d->slots = slots;
    d->slot_count = slot_count;
    return CREW_OK;
}

crew_status crew_methods_new(crew_dispatcher **table)
{
    crew_dispatcher *made = calloc(1, sizeof *made);
    struct holds *holds = calloc(1, sizeof *holds);
    if (!made || !holds) {
        free(made);
        free(holds);
        return CREW_NO_MEMORY;
    }
    made->holds = holds;
    holds->dispatcher = made;
    atomic_init(&holds->count, 1);
    *table = made;
    return CREW_OK;
}

void crew_dispatcher_free(crew_dispatcher *dispatcher)
{
    if (dispatcher)
        crew_dispatcher_release(dispatcher);
}

static crew_status make_name(crew_dispatcher *d, const char *prefix, const char *name, bool ours,
                             crew_string *full, crew_error *why)
{
    crew_buffer text = { 0 };
    crew_buffer_text(&text, prefix);
    crew_buffer_text(&text, name);
    *full = crew_buffer_move(&text, &d->arena);
    if (!full->data)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    if (full->size == 0 || (strncmp(full->data, "rpc.", 4) == 0 && !ours))
        return crew_error_set(why, CREW_BAD_ARGUMENT,
                              "method '%s': a name is not empty, and does not begin with 'rpc.'", full->data);
    return CREW_OK;
}

static crew_status make_entry(crew_dispatcher *d, const char *prefix, const crew_service *service,
                              const crew_method *method, bool ours, struct crew_entry *entry, crew_error *why)
{
    crew_error reason;
    *entry = (struct crew_entry){ .method = method, .service = service, .ours = ours };
    crew_status status = make_name(d, prefix, method->name, ours, &entry->name, why);
    if (status != CREW_OK)
        return status;
    if (!method->handler)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "method '%s' has no handler", entry->name.data);
    entry->prefix_size = strlen(prefix);
    const char *params = method->params ? crew_arena_string(&d->arena, crew_str(method->params)).data : NULL;
    if (method->params && !params)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    status = crew_signature_parse(params, service->types, &d->arena, &entry->signature, &reason);
    if (status != CREW_OK)
        return crew_error_set(why, status, "method '%s': %s", entry->name.data, reason.message);
    entry->returns_null = method->result && strcmp(method->result, "null") == 0;
    entry->result = (struct crew_declared){ .type = CREW_PARAM_ANY };
    if (method->result && !entry->returns_null &&
        !crew_declared_find(crew_str(method->result), service->types, &entry->result))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "method '%s': no result type '%s'", entry->name.data,
                              method->result);
    return CREW_OK;
}

static bool good_error_name(const char *name)
{
    size_t size = name ? strlen(name) : 0;
    return size && size < sizeof((crew_error *)0)->name && strspn(name, WORD_CHARS) == size;
}

static char key_char(char c)
{
    if (c && strchr(WORD_CHARS ".-", c))
        return c;
    return '_';
}

/* The key's character at a place: of the prefix, then of the name. */
static char key_at(crew_string prefix, const char *name, size_t at)
{
    if (at < prefix.size)
        return key_char(prefix.data[at]);
    return name[at - prefix.size];
}

static bool same_key(crew_string a_prefix, const char *a, crew_string b_prefix, const char *b)
{
    size_t size = a_prefix.size + strlen(a), at = 0;
    if (size != b_prefix.size + strlen(b))
        return false;
    while (at < size && key_at(a_prefix, a, at) == key_at(b_prefix, b, at))
        at++;
    return at == size;
}

static crew_string prefix_of(const struct crew_entry *entry)
{
    return (crew_string){ entry->name.data, entry->prefix_size };
}

crew_string crew_error_key(crew_arena *arena, const struct crew_entry *entry, const crew_service_error *error)
{
    size_t size = entry->prefix_size + strlen(error->name);
    char *key = crew_arena_alloc(arena, size + 1);
    if (!key)
        return (crew_string){ 0 };
    for (size_t i = 0; i < size; i++)
        key[i] = key_at(prefix_of(entry), error->name, i);
    key[size] = '\0';
    return (crew_string){ key, size };
}

/* Whether another service, or the same under another prefix, has an error of this key: they could not be told
 * apart in a description. */
static bool error_is_there(const crew_dispatcher *d, const char *prefix, const crew_service *service,
                           const char *name)
{
    for (const struct crew_entry *entry = d->first; entry; entry = entry->next) {
        bool own = entry->service == service && crew_string_equal(prefix_of(entry), crew_str(prefix));
        for (const crew_service_error *row = entry->errors; !own && row && row->name; row++)
            if (same_key(prefix_of(entry), row->name, crew_str(prefix), name))
                return true;
    }
    return false;
}

/* Errors and signatures are looked at when a deferred call fails, which may be after the service has gone. */
static crew_status copy_errors(crew_arena *arena, const crew_service_error *rows,
                               const crew_service_error **copy)
{
    size_t count = 0;
    while (rows && rows[count].name)
        count++;
    crew_service_error *made = crew_arena_zalloc(arena, (count + 1) * sizeof *made);
    for (size_t i = 0; i < count && made; i++) {
        made[i].code = rows[i].code;
        made[i].name = crew_arena_string(arena, crew_str(rows[i].name)).data;
        made[i].message = crew_arena_string(arena, crew_str(rows[i].message)).data;
        if (!made[i].name || !made[i].message)
            return CREW_NO_MEMORY;
    }
    *copy = made;
    return made ? CREW_OK : CREW_NO_MEMORY;
}

static crew_status check_errors(const crew_dispatcher *d, const char *prefix, const crew_service *service,
                                crew_error *why)
{
    const crew_service_error *rows = service->errors;
    for (const crew_service_error *row = rows; row && (row->name || row->code); row++) {
        if (!good_error_name(row->name))
            return crew_error_set(why, CREW_BAD_ARGUMENT,
                                  "error %lld: its name is letters, digits and _, at most %zu",
                                  (long long)row->code, sizeof why->name - 1);
        if (!row->message)
            return crew_error_set(why, CREW_BAD_ARGUMENT, "error '%s' has no message", row->name);
        if (row->code >= CREW_CODE_RESERVED_FIRST && row->code <= CREW_CODE_RESERVED_LAST)
            return crew_error_set(why, CREW_BAD_ARGUMENT, "error '%s': JSON-RPC keeps %d to %d for itself",
                                  row->name, CREW_CODE_RESERVED_FIRST, CREW_CODE_RESERVED_LAST);
        for (const crew_service_error *other = rows; other < row; other++)
            if (other->code == row->code || strcmp(other->name, row->name) == 0)
                return crew_error_set(why, CREW_BAD_ARGUMENT, "error '%s': '%s' has the same %s", row->name,
                                      other->name, other->code == row->code ? "code" : "name");
        if (error_is_there(d, prefix, service, row->name))
            return crew_error_set(why, CREW_EXISTS, "error '%s%s' is there already", prefix, row->name);
    }
    return CREW_OK;
}

crew_status crew_methods_add(crew_dispatcher *table, const char *prefix, const crew_service *service,
                             void *context, bool ours, crew_error *why)
{
    crew_dispatcher *d = table;
    prefix = prefix ? prefix : "";
    crew_status status = crew_custom_types_check(service->types, why);
    if (status == CREW_OK)
        status = check_errors(d, prefix, service, why);
    if (status != CREW_OK)
        return status;
    size_t count = 0;
    while (service->methods && service->methods[count].name)
        count++;
    struct crew_entry *entries = crew_arena_alloc(&d->arena, count * sizeof *entries);
    const crew_service_error *errors = NULL;
    if (!entries || copy_errors(&d->arena, service->errors, &errors) != CREW_OK ||
        reserve(d, d->count + count) != CREW_OK)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");

    size_t added = 0;
    for (; added < count; added++) {
        struct crew_entry *entry = &entries[added];
        status = make_entry(d, prefix, service, &service->methods[added], ours, entry, why);
        if (status != CREW_OK)
            break;
        entry->context = context ? context : service->context;
        entry->errors = errors;
        size_t slot = find_slot(d->slots, d->slot_count, entry->name);
        if (d->slots[slot]) {
            status = crew_error_set(why, CREW_EXISTS, "method '%s' is there already", entry->name.data);
            break;
        }
        d->slots[slot] = entry;
    }
    /* The newest first, so that no probe runs into a hole. */
    while (status != CREW_OK && added-- > 0)
        d->slots[find_slot(d->slots, d->slot_count, entries[added].name)] = NULL;
    if (status != CREW_OK)
        return status;
    for (size_t i = 0; i < count; i++) {
        if (d->last)
            d->last->next = &entries[i];
        else
            d->first = &entries[i];
        d->last = &entries[i];
    }
    d->count += count;
    return CREW_OK;
}

bool crew_methods_compute(const crew_dispatcher *table)
{
    bool some = false;
    for (const struct crew_entry *entry = table->first; entry; entry = entry->next) {
        if (!entry->ours && entry->service->work != CREW_WORK_CPU)
            return false;
        some = some || !entry->ours;
    }
    return some;
}
