/* digest: checksums of bytes, by libgcrypt. CPU-bound, so it wants as many threads as there are cores. */
#include <rpcrew.h>

#include <gcrypt.h>
#include <stdio.h>
#include <unistd.h>

static const int algorithms[] = { GCRY_MD_CRC32,    GCRY_MD_MD5,        GCRY_MD_SHA1,   GCRY_MD_SHA224,
                                  GCRY_MD_SHA256,   GCRY_MD_SHA384,     GCRY_MD_SHA512, GCRY_MD_SHA3_256,
                                  GCRY_MD_SHA3_512, GCRY_MD_BLAKE2B_512 };

enum { ALGORITHMS = sizeof algorithms / sizeof *algorithms, DIGEST_MOST = 64 };

/* 0 if there is none of that name. */
static int find(crew_string name)
{
    char text[32];
    if (name.size >= sizeof text)
        return 0;
    (void)snprintf(text, sizeof text, "%.*s", CREW_STR(name));
    int chosen = gcry_md_map_name(text);
    for (int i = 0; i < ALGORITHMS; i++)
        if (algorithms[i] == chosen)
            return chosen;
    return 0;
}

static crew_status digest(crew_call *call)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char bytes[DIGEST_MOST];
    char hex[2 * DIGEST_MOST + 1] = "";
    int algorithm = find(crew_arg_string(call, 0));
    crew_string data = crew_arg_bytes(call, 1);
    if (!algorithm)
        return crew_fail_param(call, 0, "names none of the algorithms that algorithms() lists");
    gcry_md_hash_buffer(algorithm, bytes, data.data, data.size);
    for (size_t i = 0; i < gcry_md_get_algo_dlen(algorithm); i++) {
        hex[2 * i] = digits[bytes[i] >> 4];
        hex[2 * i + 1] = digits[bytes[i] & 15];
    }
    return crew_reply(call, "{s:s,s:I,s:I}", "digest", hex, "bytes", (int64_t)data.size, "worker",
                      (int64_t)getpid());
}

static crew_status list_algorithms(crew_call *call)
{
    crew_value *names;
    crew_status status = crew_array_new(crew_call_arena(call), &names);
    for (int i = 0; i < ALGORITHMS && status == CREW_OK; i++) {
        const crew_value *name;
        status = crew_pack(crew_call_arena(call), &name, "s", gcry_md_algo_name(algorithms[i]));
        if (status == CREW_OK)
            status = crew_array_add(crew_call_arena(call), names, name);
    }
    return status == CREW_OK ? crew_reply_value(call, names) : status;
}

static const crew_method methods[] = {
    { "digest", digest, "algorithm:string data:bytes", "object",
      "The digest of data in hexadecimal, its size, and the process id of the worker." },
    { "algorithms", list_algorithms, "", "array", "The names that digest takes, in upper or lower case." },
    { 0 },
};

int main(int argc, char **argv)
{
    if (!gcry_check_version(GCRYPT_VERSION)) {
        fprintf(stderr, "digest: libgcrypt is older than what this was built with\n");
        return 1;
    }
    (void)gcry_control(GCRYCTL_DISABLE_SECMEM);
    (void)gcry_control(GCRYCTL_INITIALIZATION_FINISHED);
    return crew_worker_main(argc, argv,
                            &(crew_service){ .name = "digest",
                                             .version = "1.0.0",
                                             .doc = "Checksums of bytes.",
                                             .methods = methods,
                                             .work = CREW_WORK_CPU });
}
