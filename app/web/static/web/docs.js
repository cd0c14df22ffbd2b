// Starts Swagger UI with this server's OpenAPI document.

// Swagger UI's dark style needs this class.
if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.className = "dark-mode";

window.SwaggerUIBundle({
  url: new URL("openapi.json", document.baseURI).href,
  dom_id: "#swagger",
  deepLinking: true,
  // By default, Swagger UI sends the document's URL to a validator on another host.
  validatorUrl: null,
});
