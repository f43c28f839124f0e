/* Where messages end in a stream: however the bytes are cut up, the same ones are found, and nothing is
 * looked at beyond what has come. The first two bytes choose the framing and the size of the pieces. */
#include "fuzz.h"

#include "transport/stream_framing.h"

#include <string.h>

enum { MOST = 1 << 16, FOUND_MOST = 64 };

struct found {
    struct stream_span spans[FOUND_MOST]; /* from the beginning of all bytes */
    size_t count;
    bool rubbish;
};

/* Looks at what has come since taken; false: there is no more to be had. */
static bool look(struct stream_framing *framing, const char *bytes, size_t size, size_t *taken, bool ended,
                 struct found *found)
{
    struct stream_span span;
    while (*taken < size) {
        char *copy = malloc(size - *taken); /* so that reading behind it is seen */
        REQUIRE(copy);
        memcpy(copy, bytes + *taken, size - *taken);
        crew_string rest = { copy, size - *taken };
        enum stream_found what = stream_framing_next(framing, rest, ended, MOST, &span);
        free(copy);
        REQUIRE(span.body <= rest.size && span.size <= rest.size - span.body && span.end <= rest.size);
        if (what == STREAM_RUBBISH) {
            REQUIRE(framing->why);
            found->rubbish = true;
            return false;
        }
        if (what == STREAM_MORE) {
            *taken += span.body;
            return true;
        }
        REQUIRE(span.end > 0 && span.body + span.size <= span.end);
        if (found->count == FOUND_MOST)
            return false;
        found->spans[found->count++] =
            (struct stream_span){ *taken + span.body, span.size, *taken + span.end };
        *taken += span.end;
    }
    return true;
}

static void find(enum stream_kind kind, crew_string bytes, size_t piece, struct found *found)
{
    struct stream_framing framing = { .kind = kind };
    size_t taken = 0, come = 0;
    bool more = true;
    *found = (struct found){ .count = 0 };
    while (more && come < bytes.size) {
        come = piece < bytes.size - come ? come + piece : bytes.size;
        more = look(&framing, bytes.data, come, &taken, false, found);
    }
    if (more)
        (void)look(&framing, bytes.data, come, &taken, true, found);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum stream_kind kinds[] = { STREAM_UNKNOWN, STREAM_LINES, STREAM_CONCATENATED,
                                              STREAM_LENGTHS, STREAM_OBJECTS };
    struct found whole, cut;
    if (size < 2 || size > 4096)
        return 0;
    enum stream_kind kind = kinds[data[0] % 5];
    crew_string bytes = fuzz_string(data + 2, size - 2);
    find(kind, bytes, SIZE_MAX, &whole);
    find(kind, bytes, data[1] % 16 + 1U, &cut);
    REQUIRE(whole.count == cut.count && whole.rubbish == cut.rubbish);
    for (size_t i = 0; i < whole.count; i++)
        REQUIRE(whole.spans[i].body == cut.spans[i].body && whole.spans[i].size == cut.spans[i].size);
    return 0;
}
