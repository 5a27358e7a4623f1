"""Lists of values that a user may tell: names, colours, towns, pets, food and jobs."""

from __future__ import annotations


def _items(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


NAMES = _items(
    "Ada, Alan, Alice, Amir, Amy, Ana, Andrew, Anna, Anton, Arthur, Ben, Bella, Bob, Boris, "
    "Bruno, Carl, Carla, Carlos, Chloe, Clara, Claire, Daniel, Dave, David, Diana, Dora, Edgar, "
    "Elena, Ella, Emil, Emily, Emma, Erik, Eva, Fatima, Fiona, Frank, Fred, George, Gina, Grace, "
    "Hana, Hans, Harry, Helen, Henry, Hugo, Ida, Igor, Ines, Iris, Isaac, Ivan, Jack, Jacob, "
    "Jane, Jim, Joan, Joe, John, Jonas, Jose, Julia, Karl, Kate, Kenji, Kevin, Kim, Lara, Laura, "
    "Leo, Lena, Liam, Lily, Linda, Lisa, Louis, Lucas, Lucy, Luis, Luna, Marco, Maria, Marie, "
    "Mark, Martin, Mary, Max, Maya, Mia, Mike, Mila, Mina, Mohamed, Nadia, Nick, Nina, Nora, "
    "Oliver, Olga, Omar, Oscar, Otto, Pablo, Paul, Peter, Petra, Pia, Priya, Rachel, Ravi, Rita, "
    "Robert, Rosa, Ruth, Sam, Samira, Sara, Sasha, Simon, Sofia, Stefan, Steve, Susan, Tara, "
    "Thomas, Tim, Tina, Tom, Uma, Ursula, Vera, Victor, Viola, Walter, Wanda, Wei, William, "
    "Yusuf, Zara, Zoe, Mr, Smith, Bram, Sven, Astrid, Nigel, Rufus, Matilda, Quentin, Xavier, "
    "Yvonne, Bjorn, Celeste, Dmitri, Esther, Giulia, Hassan, Jasper"
)
COLOURS = _items(
    "red, green, blue, yellow, white, black, orange, purple, brown, grey, pink, gold, silver, "
    "violet, turquoise, lilac, beige, crimson, scarlet, indigo, magenta, cyan, lavender, olive, "
    "ivory, amber, coral, navy, mint, copper"
)
CITIES = _items(
    "Paris, Rome, Madrid, Berlin, Tokyo, London, Lisbon, Vienna, Oslo, Dublin, New York, Chicago, "
    "Boston, Munich, Hamburg, Milan, Turin, Naples, Porto, Geneva, Zurich, Basel, Prague, Krakow, "
    "Leeds, York, Oxford, Bristol, Glasgow, Cardiff, Nice, Lille, Nantes, Toulouse, Valencia, "
    "Granada, Bilbao, Malmo, Aarhus, Tampere, Sydney, Perth, Toronto, Montreal, Seattle, Denver, "
    "Dallas, Austin, Miami, Osaka, Kyoto, Seoul, Mumbai, Delhi, Lagos, Accra, Tunis, Rabat, "
    "Quito, Bogota, Santiago, Los Angeles, San Francisco, Cologne, Bremen, Dresden, Ghent, "
    "Utrecht, Venice, Florence, Palermo, Split, Sofia, Riga, Vilnius, Cork, Galway, Bath, Dover, "
    "Durham"
)
PET_NAMES = _items(
    "Rex, Bella, Max, Luna, Charlie, Milo, Coco, Rocky, Daisy, Buddy, Lucky, Molly, Toby, Ruby, "
    "Oscar, Felicity, Fluffy, Shadow, Tiger, Snowy, Ginger, Pepper, Oreo, Waffle, Muffin, Cookie, "
    "Peanut, Honey, Bruno, Ziggy, Bandit, Simba, Nala, Whiskers, Mittens, Smokey, Patch, Rusty, "
    "Hazel, Maple, Willow, Poppy, Bubbles, Nemo, Flash, Sparky, Duke, Zeus, Apollo, Rosie, Teddy, "
    "Bear, Socks, Tom, Jerry, Mango, Olive, Pumpkin, Domino, Pixel"
)
FOODS = _items(
    "pizza, pasta, rice, soup, bread, cheese, chocolate, ice cream, curry, sushi, noodles, salad, "
    "pancakes, apple pie, fish and chips, tacos, burgers, potatoes, risotto, ramen, falafel, "
    "hummus, steak, chicken, omelette, goulash, paella, waffles, strawberries, mangoes, popcorn, "
    "stew, spinach, tofu, kebab, couscous, ravioli, gnocchi, pretzels, porridge"
)
JOBS = _items(
    "teacher, doctor, nurse, baker, farmer, painter, writer, driver, pilot, cook, lawyer, "
    "student, singer, builder, gardener, mechanic, plumber, dentist, judge, sailor, tailor, "
    "waiter, barber, librarian, carpenter, programmer"
)
# The evaluation's dialogues use these; no training dialogue contains one.
HELD_OUT = frozenset(
    _items(
        "greta, malik, ingrid, tobias, yara, felix, noor, lyon, seville, bergen, biscuit, pickle, "
        "teal, maroon, lasagne, dumplings, 47, 583, 316"
    )
)
# Syllables of invented words.
STARTS = _items(
    "b, br, c, ch, d, dr, f, fl, g, gr, h, j, k, kl, l, m, n, p, pr, r, s, sh, sk, st, t, tr, v, "
    "w, z"
)
MIDDLES = _items("a, e, i, o, u, ai, ea, ee, oo, ou, ia")
ENDS = _items("l, n, r, s, t, m, d, k, ck, nd, ll, rt, x, th, sh")
