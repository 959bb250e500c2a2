/** Languages one can choose from: ISO 639-1 codes of those with many speakers. Their names come from the browser. */
export const LANGUAGE_CODES: readonly string[] = (
  "af am ar as az be bg bn bo bs ca cs cy da de dv el en eo es et eu fa ff fi fo fr ga gd gl gn gu ha he hi hr ht hu hy " +
  "id ig is it ja jv ka kk km kn ko ku ky la lb lg ln lo lt lv mg mi mk ml mn mr ms mt my ne nl no ny oc om or pa pl " +
  "ps pt qu rm rn ro ru rw sa sd si sk sl sm sn so sq sr st su sv sw ta te tg th ti tk tl tn to tr ts tt ug uk ur uz " +
  "vi wo xh yi yo zh zu"
).split(" ");
