// Validates the OpenRPC document on standard input against OpenRPC's meta-schema; exits 0, or 1 with what is wrong.
import { readFileSync } from "node:fs";
import Ajv from "ajv";
import openrpc from "@open-rpc/meta-schema";
import jsonSchema from "@json-schema-tools/meta-schema";

const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false });
const schemas = jsonSchema.default ?? jsonSchema;
ajv.addMetaSchema(schemas);
ajv.addSchema({ ...schemas, $id: schemas.$id.replace(/\/$/, "") }); // OpenRPC refers to it without its last slash
const validate = ajv.compile(openrpc.default ?? openrpc);
if (!validate(JSON.parse(readFileSync(0, "utf8")))) {
  console.error(ajv.errorsText(validate.errors, { separator: "\n" }));
  process.exit(1);
}
