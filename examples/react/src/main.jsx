import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';

import ImageGenerator from './ImageGenerator.jsx';
import ImageUploader from './ImageUploader.jsx';

createRoot(document.getElementById('root')).render(
  <StrictMode>
    <main>
      <h1>Images in React</h1>
      <ImageGenerator />
      <ImageUploader />
    </main>
  </StrictMode>,
);
