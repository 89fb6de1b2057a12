export default {
  input: "openapi.json",
  output: { path: "src/generated", importFileExtension: ".js", clean: true },
  plugins: ["@hey-api/client-fetch", "@hey-api/typescript", "@hey-api/sdk"],
};
