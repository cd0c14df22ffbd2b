import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// With a proxy, the page and the API have the same origin, as in production, so they need no CORS.
const proxy = { '/api': process.env.IMAGE_SERVER ?? 'http://127.0.0.1:8000' };

export default defineConfig({
  plugins: [react()],
  server: { proxy },
  preview: { proxy },
});
