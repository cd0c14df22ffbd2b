// Starts Swagger UI on this server's own description.

window.SwaggerUIBundle({
  url: new URL("openapi.json", document.baseURI).href,
  dom_id: "#swagger",
  deepLinking: true,
  // Else Swagger UI sends the description's address to a validator on another host.
  validatorUrl: null,
});
