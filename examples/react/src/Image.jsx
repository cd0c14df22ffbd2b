import { useMemo, useState } from 'react';
import { thumbHashToDataURL } from 'thumbhash';

/** An image of the server. `image` is the JSON of an upload, a generation, a listing's entry or `/info`. */
function Image({ image, alt, style, ...others }) {
  const { image_url: url, width, height, thumbhash, variants } = image;
  const [loaded, setLoaded] = useState(false);
  const placeholder = useMemo(() => thumbhash && `url(${decode(thumbhash)}) 0 0 / 100% 100%`, [thumbhash]);
  const background = loaded || !placeholder ? undefined : placeholder;
  const srcSet = width && variants?.srcset ? `${variants.srcset}, ${url} ${width}w` : undefined;
  return (
    <img loading="lazy" sizes={srcSet && 'auto, 100vw'} srcSet={srcSet} src={url} alt={alt} width={width}
      height={height} onLoad={() => setLoaded(true)} {...others}
      style={{ maxWidth: '100%', height: 'auto', background, ...style }} />
  );
}

function decode(thumbhash) {
  return thumbHashToDataURL(Uint8Array.from(atob(thumbhash), (character) => character.charCodeAt(0)));
}

export default Image;
