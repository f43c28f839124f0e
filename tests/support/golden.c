#include "support/golden.h"

static int hex(char c)
{
    return c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
}

/* The line's text with its \xHH turned to bytes. */
static size_t unescape(const char *line, char *out)
{
    size_t size = 0;
    for (const char *at = line; *at && *at != '\n';) {
        if (at[0] == '\\' && at[1] == 'x') {
            out[size++] = (char)(hex(at[2]) << 4 | hex(at[3]));
            at += 4;
        } else {
            out[size++] = *at++;
        }
    }
    return size;
}

static bool answers(crew_string request, const char *expected, golden_answerer *answer, void *context)
{
    crew_arena arena = { 0 };
    crew_bytes got = answer(context, request);
    bool right;
    if (*expected == '\0' || got.size == 0) {
        right = *expected == '\0' && got.size == 0;
    } else {
        const crew_value *value = NULL;
        right =
            crew_json_decode((crew_string){ got.data, got.size }, NULL, &arena, &value, NULL) == CREW_OK &&
            json_covers(parse_json(&arena, expected), value);
    }
    if (!right)
        print_error("-> %.*s\n   wanted %s\n   got    %.*s\n", CREW_STR(request),
                    *expected ? expected : "nothing", (int)got.size, got.data ? (const char *)got.data : "");
    crew_bytes_free(&got);
    crew_arena_fini(&arena);
    return right;
}

size_t golden_run(const char *name, golden_answerer *answer, void *context)
{
    char path[512], line[4096], request[4096];
    size_t size = 0, count = 0, wrong = 0;
    (void)snprintf(path, sizeof path, "%s/%s", GOLDEN_DIR, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "-> ", 3) == 0) {
            size = unescape(line + 3, request);
        } else if (strncmp(line, "<-", 2) == 0) {
            count++;
            wrong += !answers((crew_string){ request, size }, line + 2 + (line[2] == ' '), answer, context);
        }
    }
    (void)fclose(file);
    if (wrong)
        fail_msg("%zu of %zu cases of %s", wrong, count, name);
    return count;
}
