import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// The page and the API share one origin, here as in production: no CORS, and an <img> just works.
const proxy = { '/api': process.env.IMAGE_SERVER ?? 'http://127.0.0.1:8000' };

export default defineConfig({
  plugins: [react()],
  server: { proxy },
  preview: { proxy },
});
