/* call, notify, ping, describe. */
#include "commands.h"
#include "colour.h"
#include "params.h"
#include "show.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

void cli_print_safely(crew_string text, bool lines, FILE *file)
{
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.data[i];
        bool c1 = c == 0xC2 && i + 1 < text.size && (unsigned char)text.data[i + 1] < 0xA0;
        if ((c < ' ' && !(lines && c == '\n')) || c == 0x7F || c1)
            (void)fprintf(file, "\\u%04x", c1 ? (unsigned char)text.data[++i] : c);
        else
            (void)fputc(c, file);
    }
}

int cli_fail(const crew_error *why)
{
    cli_complain("%s", "");
    cli_print_safely(crew_str(why->message), false, stderr);
    (void)fputc('\n', stderr);
    switch (why->status) {
    case CREW_OK: return EXIT_OK;
    case CREW_REMOTE_ERROR: return EXIT_REMOTE_ERROR;
    case CREW_NO_SERVICE: return EXIT_NO_SERVICE;
    case CREW_TIMEOUT:
    case CREW_EXPIRED: return EXIT_TIME;
    case CREW_OVERLOADED: return EXIT_OVERLOADED;
    case CREW_DISCONNECTED:
    case CREW_CANCELLED: return EXIT_LOST;
    case CREW_BAD_REPLY: return EXIT_BAD_REPLY;
    case CREW_BAD_ARGUMENT:
    case CREW_UNSUPPORTED:
    case CREW_OUT_OF_RANGE:
    case CREW_LIMIT: return EXIT_USAGE;
    default: return EXIT_LOCAL;
    }
}

static crew_status print_json(const struct cli *cli, const crew_value *value, FILE *file)
{
    crew_arena *arena = NULL;
    crew_bytes json;
    crew_status status = crew_arena_new(&arena);
    if (status == CREW_OK)
        status = cli_show(arena, value, &value);
    if (status == CREW_OK)
        status = crew_json_encode(value, cli->pretty ? CREW_JSON_PRETTY : CREW_JSON_COMPACT, &json);
    if (status == CREW_OK) {
        cli_print_json((crew_string){ json.data, json.size }, file);
        crew_bytes_free(&json);
    }
    crew_arena_free(arena);
    return status;
}

/* main sees to what could not be written */
static int print_value(const struct cli *cli, const crew_value *value, FILE *file)
{
    crew_string text;
    if (cli->raw && crew_value_bytes(value, &text) == CREW_OK) {
        if (isatty(fileno(file)))
            cli_print_safely(text, true, file);
        else
            (void)fwrite(text.data, 1, text.size, file);
        if (crew_value_type(value) == CREW_TYPE_STRING)
            (void)fputc('\n', file);
        return EXIT_OK;
    }
    crew_status status = print_json(cli, value, file);
    if (status != CREW_OK) {
        cli_complain("the result cannot be shown: %s\n", crew_status_text(status));
        return EXIT_LOCAL;
    }
    (void)fputc('\n', file);
    return EXIT_OK;
}

crew_status cli_read_call(const struct cli *cli, crew_arena *arena, const crew_value **params,
                          crew_error *why)
{
    if (cli->count == 0)
        return crew_error_set(why, CREW_BAD_ARGUMENT,
                              "wants a METHOD; rpcrew describe URL shows what there is");
    if (cli->words[0][0] == '-')
        return crew_error_set(why, CREW_BAD_ARGUMENT, "'%s' is no METHOD: options go before a --",
                              cli->words[0]);
    return cli_params(arena, cli->words + 1, cli->count - 1, cli->bytes, params, why);
}

/* Where a string was wanted, and a word was taken for another kind of JSON: how it is written. */
static void hint(const struct cli *cli, const crew_value *data)
{
    const char *param = "", *expected = "", *got = "", *value = "TEXT";
    if (crew_unpack(data, "{s:s,s:s,s:s}", "param", &param, "expected", &expected, "got", &got) != CREW_OK ||
        strcmp(expected, "string") != 0)
        return;
    size_t size = strlen(param);
    for (size_t i = 1; i < cli->count; i++) {
        const char *word = cli->words[i];
        if (strncmp(word, param, size) == 0 && word[size] == '=' && !strpbrk(word, "\"\\'@"))
            value = word + size + 1;
    }
    cli_complain("a string is written '");
    if (strcmp(value, "TEXT") != 0)
        (void)fprintf(stderr, "%s=", param);
    (void)fputc('"', stderr);
    cli_print_safely(crew_str(value), false, stderr);
    (void)fputs("\"'\n", stderr);
}

static const char *text_of(const crew_value *value, const char *name)
{
    const char *text = "";
    return crew_unpack(crew_value_get(value, name), "s", &text) == CREW_OK ? text : "";
}

/* Whether the service says that the method's result is bytes. One that does not describe itself says nothing.
 */
static crew_status ask_for_bytes(const struct cli *cli, bool *bytes, crew_error *why)
{
    crew_result *described = NULL;
    *bytes = false;
    crew_status status =
        crew_client_call_value(cli->client, "rpc.discover", NULL, &cli->call, &described, why);
    bool reserved = why->code >= CREW_CODE_RESERVED_FIRST && why->code <= CREW_CODE_RESERVED_LAST;
    bool describes_nothing =
        status == CREW_REMOTE_ERROR && (!reserved || why->code == CREW_CODE_METHOD_NOT_FOUND);
    const crew_value *methods = crew_value_get(crew_result_value(described), "methods");
    for (size_t i = 0; i < crew_value_count(methods); i++) {
        const crew_value *method = crew_value_at(methods, i);
        const crew_value *schema = crew_value_get(crew_value_get(method, "result"), "schema");
        if (strcmp(text_of(method, "name"), cli->words[0]) == 0)
            *bytes = strcmp(text_of(schema, "contentEncoding"), "base64") == 0;
    }
    crew_result_free(described);
    return describes_nothing ? CREW_OK : status;
}

/* What was declared as bytes is written as such, whatever carried it. */
static int print_bytes(const struct cli *cli, crew_arena *arena, const crew_value *value)
{
    crew_string bytes;
    struct cli raw = *cli;
    raw.raw = true;
    crew_status status = crew_value_base64(arena, value, &bytes);
    if (status == CREW_OK)
        status = crew_pack(arena, &value, "y%", bytes.data, bytes.size);
    if (status == CREW_OK)
        return print_value(&raw, value, stdout);
    cli_complain("the result was declared as bytes, and is %s\n",
                 crew_value_type(value) == CREW_TYPE_STRING ? "no base64"
                                                            : crew_type_name(crew_value_type(value)));
    return EXIT_BAD_REPLY;
}

int cli_call(const struct cli *cli)
{
    crew_arena *arena = NULL;
    const crew_value *params = NULL;
    crew_result *result = NULL;
    bool bytes = false;
    crew_error why = { .status = CREW_NO_MEMORY, .message = "no memory" };
    crew_status status = crew_arena_new(&arena);
    if (status == CREW_OK)
        status = cli_read_call(cli, arena, &params, &why);
    if (status == CREW_OK && cli->bytes_result) /* before anything is done by the call itself */
        status = ask_for_bytes(cli, &bytes, &why);
    if (status == CREW_OK)
        status = crew_client_call_value(cli->client, cli->words[0], params, &cli->call, &result, &why);
    const crew_value *value = crew_result_value(result);
    int code = status != CREW_OK ? cli_fail(&why)
               : bytes || (cli->bytes_result && crew_value_type(value) == CREW_TYPE_BYTES)
                   ? print_bytes(cli, arena, value)
                   : print_value(cli, value, stdout);
    if (crew_result_error_data(result)) {
        (void)print_value(cli, crew_result_error_data(result), stderr);
        hint(cli, crew_result_error_data(result));
    }
    crew_result_free(result);
    crew_arena_free(arena);
    return code;
}

int cli_notify(const struct cli *cli)
{
    crew_arena *arena = NULL;
    const crew_value *params = NULL;
    crew_error why = { .status = CREW_NO_MEMORY, .message = "no memory" };
    crew_status status = crew_arena_new(&arena);
    if (status == CREW_OK)
        status = cli_read_call(cli, arena, &params, &why);
    if (status == CREW_OK)
        status = crew_client_notify_value(cli->client, cli->words[0], params, &cli->call, &why);
    crew_arena_free(arena);
    return status == CREW_OK ? EXIT_OK : cli_fail(&why);
}

static crew_status no_words(const struct cli *cli, crew_error *why)
{
    if (cli->count)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "'%s': nothing is wanted behind the URL",
                              cli->words[0]);
    return CREW_OK;
}

/* Any answer shows that somebody is there, also that of a service which does not know rpc.ping. */
int cli_ping(const struct cli *cli)
{
    crew_error why;
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    crew_status status = no_words(cli, &why);
    if (status == CREW_OK)
        status = crew_client_call_value(cli->client, "rpc.ping", NULL, &cli->call, NULL, &why);
    clock_gettime(CLOCK_MONOTONIC, &after);
    if (status != CREW_OK && status != CREW_REMOTE_ERROR)
        return cli_fail(&why);
    double ms = (double)(after.tv_sec - before.tv_sec) * 1e3 + (double)(after.tv_nsec - before.tv_nsec) / 1e6;
    char shown[512];
    printf("%s answers in %.3f ms\n", crew_redact(cli->url, shown, sizeof shown), ms);
    return EXIT_OK;
}

/* Whether a worker takes calls; one that knows no rpc.health, and answers, does. */
int cli_probe(const struct cli *cli)
{
    crew_error why;
    crew_result *result = NULL;
    const char *status = "serving";
    crew_status called = no_words(cli, &why);
    if (called == CREW_OK)
        called = crew_client_call_value(cli->client, "rpc.health", NULL, &cli->call, &result, &why);
    if (called == CREW_OK)
        (void)!crew_unpack(crew_result_value(result), "{s:s}", "status", &status);
    bool answers =
        called == CREW_OK || (called == CREW_REMOTE_ERROR && why.code == CREW_CODE_METHOD_NOT_FOUND);
    bool serves = answers && strcmp(status, "serving") == 0;
    int code = !answers ? cli_fail(&why) : serves ? EXIT_OK : EXIT_REMOTE_ERROR;
    if (answers) {
        cli_print_safely(crew_str(status), false, stdout);
        (void)putchar('\n');
    }
    crew_result_free(result);
    return code;
}

static const char *type_of(const crew_value *schema)
{
    const char *type = text_of(schema, "type"), *title = text_of(schema, "title");
    if (*title && !strchr(title, ' ')) /* a type's name, and no sentence about it */
        return title;
    if (*text_of(schema, "contentEncoding"))
        return "bytes";
    /* as signatures have them */
    if (strcmp(type, "integer") == 0)
        return crew_member_int(schema, "minimum", -1) == 0 ? "uint" : "int";
    if (strcmp(type, "boolean") == 0)
        return "bool";
    return *type ? type : "any";
}

static bool flag_of(const crew_value *value, const char *name)
{
    bool flag = false;
    return crew_value_bool(crew_value_get(value, name), &flag) == CREW_OK && flag;
}

static void print_method(const crew_value *method, FILE *out)
{
    const crew_value *params = crew_value_get(method, "params");
    fprintf(out, "%s(", text_of(method, "name"));
    for (size_t i = 0; i < crew_value_count(params); i++) {
        const crew_value *param = crew_value_at(params, i), *schema = crew_value_get(param, "schema");
        bool variadic = flag_of(param, "x-variadic");
        const crew_value *fallback = crew_value_get(schema, "default");
        crew_bytes json = { 0 };
        fprintf(out, "%s%s: %s%s", i ? ", " : "", text_of(param, "name"),
                type_of(variadic ? crew_value_get(schema, "items") : schema),
                variadic                                 ? "..."
                : flag_of(param, "required") || fallback ? ""
                                                         : "?");
        if (fallback && crew_json_encode(fallback, CREW_JSON_COMPACT, &json) == CREW_OK)
            fprintf(out, " = %.*s", (int)json.size, (const char *)json.data);
        crew_bytes_free(&json);
    }
    fprintf(out, "%s) -> %s\n", flag_of(method, "x-unchecked") ? "any..." : "",
            type_of(crew_value_get(crew_value_get(method, "result"), "schema")));
    if (*text_of(method, "description"))
        fprintf(out, "    %s\n", text_of(method, "description"));
}

static void print_errors(const crew_value *errors, FILE *out)
{
    if (crew_value_count(errors))
        fprintf(out, "\nerrors\n");
    for (size_t i = 0; i < crew_value_count(errors); i++) {
        const crew_value *error = crew_value_at(errors, i);
        crew_string name = { 0 };
        int64_t code = 0;
        (void)!crew_value_string(crew_value_key_at(errors, i), &name);
        (void)!crew_value_int(crew_value_get(error, "code"), &code);
        fprintf(out, "    %lld %.*s: %s\n", (long long)code, CREW_STR(name), text_of(error, "message"));
    }
}

static int print_description(const crew_value *document)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return EXIT_LOCAL;
    const crew_value *info = crew_value_get(document, "info"), *methods = crew_value_get(document, "methods");
    fprintf(out, "%s %s\n", text_of(info, "title"), text_of(info, "version"));
    if (*text_of(info, "description"))
        fprintf(out, "%s\n", text_of(info, "description"));
    for (size_t i = 0; i < crew_value_count(methods); i++) {
        (void)fputc('\n', out);
        print_method(crew_value_at(methods, i), out);
    }
    print_errors(crew_value_get(crew_value_get(document, "components"), "errors"), out);
    bool whole = fclose(out) == 0;
    if (whole)
        cli_print_safely((crew_string){ text, size }, true, stdout);
    free(text);
    return whole ? EXIT_OK : EXIT_LOCAL;
}

int cli_describe(const struct cli *cli)
{
    crew_result *result = NULL;
    crew_error why;
    crew_status status = no_words(cli, &why);
    if (status == CREW_OK)
        status = crew_client_call_value(cli->client, "rpc.discover", NULL, &cli->call, &result, &why);
    if (status != CREW_OK) {
        crew_result_free(result);
        return cli_fail(&why);
    }
    const crew_value *document = crew_result_value(result);
    int code = cli->json ? print_value(cli, document, stdout) : print_description(document);
    crew_result_free(result);
    return code;
}
