// Starts Swagger UI on this server's own description.

// Swagger UI leaves its dark style to the page.
if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.className = "dark-mode";

window.SwaggerUIBundle({
  url: new URL("openapi.json", document.baseURI).href,
  dom_id: "#swagger",
  deepLinking: true,
  // Else Swagger UI sends the description's address to a validator on another host.
  validatorUrl: null,
});
